"""The page and the HTTP API of `aigveval app`: one process, one model, a queue before it.

    limits, files -> service -> guard, api -> page -> serve

`limits`, `files` and `service` know nothing of HTTP; Gradio, FastAPI and uvicorn, which the extra
`app` brings, are imported by the others alone.

May import `inference`, `reports`, `data`, `encoders`, `prompts` and the leaves of the root.
"""

"""How much of `score_many`'s throughput many clients of `aigveval app` get, over HTTP.

Both take turns in one process, on the same clips, so that whatever else the machine does befalls
both.

    python examples/benchmarks/serving.py [--clients 32] [--clips 64] [--rounds 3]

Needs `pip install ".[app]" httpx`.
"""

import argparse
import statistics
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path

import aigveval

try:
    import httpx
    import uvicorn

    from aigveval.app.serve import application, listen
except ImportError as error:
    sys.exit(f'{error}: pip install ".[app]" httpx')

VIDEOS = sorted((Path(__file__).parents[1] / "videos").glob("*.mp4"))
PROMPT = "a red car drives along a road"


def main(clients, clips, rounds):
    assessor = aigveval.load("lite")
    paths = list(islice(cycle(VIDEOS), clips))
    with listen("127.0.0.1", 0) as bound, application(assessor) as app:
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{bound.getsockname()[1]}/api/score"
        with httpx.Client(timeout=600, limits=httpx.Limits(max_connections=clients)) as client:

            def ask(path):
                answer = client.post(
                    url, files={"video": path.read_bytes()}, data={"prompt": PROMPT}
                )
                assert answer.status_code == 200, answer.text
                return answer.json()["overall"]["score"]

            ask(paths[0])  # loads what is loaded once
            ratios = []
            for _ in range(rounds):
                start = time.perf_counter()
                rows = assessor.score_many(paths, prompts=PROMPT)
                expected = [row.overall.score for row in rows]
                direct = time.perf_counter() - start
                start = time.perf_counter()
                with ThreadPoolExecutor(clients) as pool:
                    found = list(pool.map(ask, paths))
                served = time.perf_counter() - start
                assert all(abs(one - other) < 1e-4 for one, other in zip(found, expected))
                ratios.append(direct / served)
                print(
                    f"score_many {clips / direct:.2f} clips/s, {clients} clients "
                    f"{clips / served:.2f} clips/s, ratio {ratios[-1]:.2f}",
                    flush=True,
                )
        server.should_exit = True
        thread.join(20)
    print(f"median ratio {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--clips", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    main(**vars(parser.parse_args()))

"""What `aigveval doctor` looks at: libraries, machine, decoders, weights, and a self-test.

May import `inference`, `model`, `encoders` and the leaves of the root.
"""

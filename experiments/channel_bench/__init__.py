"""Generated weights and searches against Channel-Bench-Macro's truth: a small pipeline of its own.

No base is trained and no network is trained to its end: the truth of each is in the tables. So it
has its own stages (`channel_bench/dvc.yaml`), and `make channel-bench` runs them.
"""

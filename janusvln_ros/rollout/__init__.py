"""An agent in an engine under a strategy: evaluate, collect, dagger; sharded and resumable."""

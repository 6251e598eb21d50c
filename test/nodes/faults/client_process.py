"""A client as a process of its own: one instruction, as 'janusvln go' sends it."""

from janusvln_ros.graph.operating import operating

if __name__ == "__main__":
    with operating(None, None, patience=30.0) as operator:
        operator.follow("go")

"""Trainings on a cluster, by Ray, which only these modules import: one over many machines, and
many at once.

training: one, in the same five stages as on one machine; capturing, choosing, encoding: what the
machines do of them; pool: the workers, and what becomes of one that is lost; worker: what runs on
each; kept_parts: the folder that all of them reach; far_model: the model as the machine that starts
it sees it. trainings: a list of them, each on one machine; task: what is done there; board: where
they tell how far they are. machine: what each is called and computes with; shared_folder: how they
know the folder of runs; connection: Ray itself; address: how a cluster is called.
"""

"""One training over many machines, by Ray, which only these modules import.

training: the same five stages as on one machine; capturing, encoding: what the machines do of them;
pool: the workers, and what becomes of one that is lost; worker: what runs on each; kept_parts: the
folder that all of them reach; far_model: the model as the machine that starts it sees it;
connection: Ray itself.
"""

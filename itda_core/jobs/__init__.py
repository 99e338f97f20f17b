"""Work in processes of its own. job: one of them; kept: those of a data folder; queue: which runs
when; submissions: what can be queued of dictionaries that are there; process, claim: how one is
started and whose it is; places: on which device; estimate: how long they take."""

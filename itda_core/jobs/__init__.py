"""Work in processes of its own. job: one of them; kept: those of a data folder; submissions: what
can be queued; queue: which runs when; process, claim: how one is started and whose it is; places:
on which device; estimate: how long they take."""

"""Work in processes of its own. job: one of them; queue: those of a data folder; estimate: how long
they take."""

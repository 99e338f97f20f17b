"""Work in processes of its own. queue: the jobs of a data folder; estimate: how long they take."""

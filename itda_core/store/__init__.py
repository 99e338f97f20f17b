"""The explorer's database, an index of the run directories; all SQL is here.

database: schema and transactions; importer: a run into the tables; index: a folder followed;
run_queries, latent_queries, use_queries, comparison_queries: the questions that pages ask;
latent_search: searches as SQL; store: all of it behind one object.
"""

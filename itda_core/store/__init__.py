"""The explorer's database, an index of the run directories; all SQL is here.

database: schema and transactions; importer: a run into the tables; index: a folder followed;
latent_search, latent_queries, store: the queries.
"""

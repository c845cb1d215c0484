"""ZooKeeper: one ephemeral node per service (`backend`), under one session (`session`)."""

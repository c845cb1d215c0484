"""ZooKeeper: one ephemeral node per service (`backend`)."""

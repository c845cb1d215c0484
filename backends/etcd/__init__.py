"""etcd version 3: plain keys (`backend`) and SkyDNS records (`skydns`)."""

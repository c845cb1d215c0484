"""etcd version 3: plain keys (`backend`), and DNS records for SkyDNS and CoreDNS (`skydns`)."""

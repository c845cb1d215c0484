consul {
  address = "127.0.0.1:8500"
}

template {
  source      = "/upstream.ctmpl"
  destination = "/rendered/web.conf"
  command     = "kill -HUP 1"
}

"""A gRPC service: ``demo.Greeter/Greet`` answers a name with a greeting."""

import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc


def greet(name: bytes, _context: grpc.ServicerContext) -> bytes:
    return b"Hello, " + name


server = grpc.server(ThreadPoolExecutor(4))
method = grpc.unary_unary_rpc_method_handler(greet)
server.add_generic_rpc_handlers(
    [grpc.method_handlers_generic_handler("demo.Greeter", {"Greet": method})]
)
server.add_insecure_port("0.0.0.0:9000")
server.start()

end = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: end.set())
end.wait()
server.stop(grace=1)

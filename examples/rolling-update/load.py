"""Sends requests to nginx until it is told to stop, and then prints how many of them failed.

Each request has a connection of its own.
"""

import signal
import threading
import urllib.request

PAUSE = 0.02
end = threading.Event()
counts = []


def send() -> None:
    done = failed = 0
    while not end.wait(PAUSE):
        done += 1
        try:
            with urllib.request.urlopen("http://127.0.0.1:8080/", timeout=10) as answer:
                failed += not answer.read().startswith(b"release ")
        except OSError:
            failed += 1
    counts.append((done, failed))


signal.signal(signal.SIGTERM, lambda *_: end.set())
threads = [threading.Thread(target=send) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(f"{sum(d for d, _ in counts)} requests, {sum(f for _, f in counts)} failed")

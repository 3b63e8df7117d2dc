"""A real Python program: modules from the standard library, threads, files; prints a digest of what it computed."""
import collections
import hashlib
import json
import pathlib
import queue
import re
import tempfile
import threading


def worker(jobs, results):
    while (number := jobs.get()) is not None:
        results[number] = hashlib.sha256(str(number).encode() * 1000).hexdigest()


def main():
    jobs, results = queue.Queue(), {}
    threads = [threading.Thread(target=worker, args=(jobs, results)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(400):
        jobs.put(number)
    for _ in threads:
        jobs.put(None)
    for thread in threads:
        thread.join()
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "results.json")
        path.write_text(json.dumps(results, sort_keys=True))
        words = collections.Counter(re.findall(r"[a-f]+", path.read_text()))
    print(f"{len(results)} digests by {len(threads)} threads; most common letters: {words.most_common(3)}")


main()

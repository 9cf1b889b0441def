"""Read a job and its results with Modzy's own Python SDK, for a test to compare with.

Run by the SDK's own interpreter. Reads ``{"base_url", "api_key", "job"}`` from standard input and
writes ``{"job", "results"}`` to standard output.
"""

import json
import sys

from modzy import ApiClient

spec = json.load(sys.stdin)
client = ApiClient(base_url=spec["base_url"], api_key=spec["api_key"])
job = client.jobs.get(spec["job"])
results = client.results.get(spec["job"])
json.dump({"job": job, "results": results}, sys.stdout, default=dict)

"""Work with jobs through Modzy's own Python SDK, for a test to compare what it sees.

Run by the SDK's own interpreter. Reads ``{"base_url", "api_key", "submit": [args], "known": job
identifier}`` from standard input, and writes what the SDK says to standard output, as JSON.
"""

import json
import sys

from modzy import ApiClient

spec = json.load(sys.stdin)
client = ApiClient(base_url=spec["base_url"], api_key=spec["api_key"])
job = client.jobs.submit_azureblob(*spec["submit"])
answers = {
    "submitted": [job.job_identifier, job.status],
    "ended": client.jobs.block_until_complete(job, timeout=30, poll_interval=0.1),
    "outputs": client.results.get(job).get_first_outputs(),
    "known_job": client.jobs.get(spec["known"]),
    "known_result": client.results.get(spec["known"]),
    "history": [one.job_identifier for one in client.jobs.get_history(per_page=50)],
}
json.dump(answers, sys.stdout)

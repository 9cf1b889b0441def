"""Submit jobs with Modzy's own Python SDK, for a test to compare what goes over the wire.

Run by the SDK's own interpreter, since its dependencies do not get along with the project's.
Reads ``{"base_url", "api_key", "calls": [[args, kwargs], ...]}`` from standard input. A model
written as ``{"modelId": ...}`` becomes the SDK's model object.
"""

import json
import sys

from modzy import ApiClient
from modzy.models import Model

spec = json.load(sys.stdin)
client = ApiClient(base_url=spec["base_url"], api_key=spec["api_key"])
for (model, *args), kwargs in spec["calls"]:
    client.jobs.submit_azureblob(
        Model(model) if isinstance(model, dict) else model, *args, **kwargs
    )

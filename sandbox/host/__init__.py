"""A local stand-in for the Azure Functions host.

It runs any Python (v2 model) function app through Microsoft's own worker library
(``azure-functions-runtime``) and does what the host does around it, against the storage service
that the app's settings name. It reads bindings from the worker's metadata and knows no app.

The modules name the sources of what they imitate: the Functions host 4.1037
(Azure/azure-functions-host), the WebJobs SDK under it (Azure/azure-webjobs-sdk and -extensions),
the storage extensions 5.3.7 that the stable extension bundle pins (Azure/azure-sdk-for-net,
``Microsoft.Azure.WebJobs.Extensions.Storage.*``), and the worker library 1.3.0 as it is installed.

Imitated:

- settings, ``%NAME%`` references, connections, disabled functions, ``host.json``;
- blob triggers of SDK types: scanning with receipts, the Event Grid webhook, the internal queue,
  five immediate attempts, the poison queue of the watched account;
- queue triggers: back-off, batches, leases and their extension, base64, poison queues;
- timers with the monitor; HTTP triggers with keys; runs by hand; the host's status;
- several hosts with one id, shutdown within 10 s, replacement of the worker after a timeout.

Not imitated: gRPC and its limits; contents of blobs as a trigger's value; input and output
bindings; retry policies; analytics logs and the watermark of real accounts' scans; drain mode;
dynamic concurrency; throttling; HTTP streaming; key management calls; scale decisions. An app that
needs one of the bindings among these is refused by name.

Different on purpose: scanning compares ETags, where the real host on an emulator loses blobs of
the same second (``--strict-last-modified`` restores that); ``--emit-events`` makes the events that
an emulated account does not send.
"""

from sandbox.host.child import FunctionsHost

__all__ = ["FunctionsHost"]

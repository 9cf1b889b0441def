"""A local stand-in for the Azure Functions host.

It runs any Python (v2 model) function app through Microsoft's own worker library
(``azure-functions-runtime``) and does what the host does around it, against the storage service
that the app's settings name. It reads bindings from the worker's metadata and knows no app.

Imitated, after the notes in the project's ``functions-host.md`` (section numbers in the modules):

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

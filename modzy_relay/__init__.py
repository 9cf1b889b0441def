"""One Modzy job for every file that lands in an Azure Blob container."""

__version__ = "0.1.0"

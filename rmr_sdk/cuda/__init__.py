"""NVIDIA GPUs: memory, streams and copies for engines and kernels, in the primary context of the process.

    open_device(0) -> Device    allocate, pinned, mapped, view, stream, upload, download, capture

Importing this touches no driver; `open_device` does.
"""

from __future__ import annotations

from rmr_sdk.cuda.base import Device, DeviceArray, DeviceInfo, Event, Graph, Stream
from rmr_sdk.cuda.device import open_device
from rmr_sdk.cuda.gpus import list_devices

__all__ = ["Device", "DeviceArray", "DeviceInfo", "Event", "Graph", "Stream", "list_devices", "open_device"]

"""Whole studies in other software: the same weights, the same normalised volume, the same tile and overlap.

Every peer takes both contrasts as (1, 2, D, H, W), normalised beforehand, and gives the fused image and the labels.
What a peer does once, loading and compiling, is not part of its time. A peer that cannot run here says why.

| peer | network | tiles and blending |
| --- | --- | --- |
| torch eager, torch autocast, torch.compile | PyTorch | MONAI sliding_window_inference |
| ONNX Runtime, OpenVINO, Torch-TensorRT | the bundle's graph, or the torch module | MONAI sliding_window_inference |
| nnU-Net | PyTorch eager | nnUNetPredictor's own loop |
| TorchIO | PyTorch eager | GridSampler, GridAggregator |
"""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
Answer = tuple[FloatArray, npt.NDArray[np.uint8]]
Run = Callable[[FloatArray], Answer]


@dataclass(frozen=True)
class Setting:
    """What all peers share.

    Attributes:
        checkpoint: The weights for torch.
        bundle: The same weights as graphs: folder or .zip.
        tile_shape: Of one tile.
        overlap: Fraction of a tile.
        threads: To compute with.
        device: "cpu" or "cuda".
        classes: Number of classes.
        sigma_scale: Deviation of the bundle's Gaussian window, in sides of a tile.
    """

    checkpoint: str
    bundle: str
    tile_shape: tuple[int, int, int]
    overlap: float
    threads: int
    device: str
    classes: int
    sigma_scale: float


def gaussian_window(shape: tuple[int, int, int], sigma_scale: float) -> FloatArray:
    """Return the window that tiles are blended with, 1 in the middle."""
    axes = [np.exp(-0.5 * ((np.arange(n) - (n - 1) / 2) / (sigma_scale * n)) ** 2) for n in shape]
    return (axes[0][:, None, None] * axes[1][None, :, None] * axes[2][None, None, :]).astype(np.float32)


class Unavailable(Exception):  # noqa: N818 - no error of this program
    """The peer cannot run here; its words say why."""


Batch = Any
Network = Callable[[Batch], tuple[Any, Any]]
"""Takes (1, 2, D, H, W), gives the fused image (1, 1, D, H, W) and the probabilities (1, classes, D, H, W)."""


def load_module(setting: Setting) -> Any:
    """Return the torch module: (1, 2, D, H, W) to both outputs."""
    import torch

    from rmr_training.checkpoint import load_network

    torch.set_num_threads(setting.threads)

    class Both(torch.nn.Module):
        """The network with its two outputs as the bundle gives them."""

        def __init__(self) -> None:
            super().__init__()
            self.network = load_network(Path(setting.checkpoint))

        def forward(self, both: Any) -> tuple[Any, Any]:
            found = self.network(both[:, :1], both[:, 1:])
            return found.image, found.logits.softmax(1)

    return Both().eval().to(setting.device)


def through_monai(setting: Setting, network: Network, autocast: str = "") -> Run:
    """Tile and blend with MONAI, with the bundle's window, so that the labels are those of the same sums."""
    import torch
    from monai.inferers import sliding_window_inference

    window = torch.from_numpy(gaussian_window(setting.tile_shape, setting.sigma_scale)).to(setting.device)

    def run(inputs: FloatArray) -> Answer:
        with torch.inference_mode(), _autocast(setting.device, autocast):
            fused, probability = sliding_window_inference(
                torch.from_numpy(inputs),
                setting.tile_shape,
                1,
                network,
                setting.overlap,
                mode="constant",
                roi_weight_map=window,
                sw_device=setting.device,
                device="cpu" if setting.device == "cpu" else setting.device,
            )
            labels = probability[0].argmax(0).to(torch.uint8)
        return fused[0, 0].float().cpu().numpy(), labels.cpu().numpy()

    return run


def _autocast(device: str, kind: str) -> Any:
    import torch

    return torch.autocast(device, dtype=getattr(torch, kind or "float32"), enabled=bool(kind))


def open_eager(setting: Setting) -> Run:
    """Torch as it comes."""
    return through_monai(setting, load_module(setting))


def open_autocast(setting: Setting) -> Run:
    """Torch in mixed precision: bfloat16 on a CPU, float16 on a GPU."""
    return through_monai(setting, load_module(setting), "bfloat16" if setting.device == "cpu" else "float16")


def open_compiled(setting: Setting) -> Run:
    """torch.compile with its default backend, inductor."""
    import torch

    return through_monai(setting, torch.compile(load_module(setting), dynamic=False))


def open_compiled_autocast(setting: Setting) -> Run:
    """torch.compile in mixed precision."""
    import torch

    kind = "bfloat16" if setting.device == "cpu" else "float16"
    return through_monai(setting, torch.compile(load_module(setting), dynamic=False), kind)


def open_onnxruntime(setting: Setting) -> Run:
    """The bundle's float32 graph in ONNX Runtime."""
    import onnxruntime
    import torch

    provider = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}[setting.device]
    if provider not in onnxruntime.get_available_providers():
        raise Unavailable(f"this ONNX Runtime has no {provider}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = setting.threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(_graph(setting), options, [provider])

    def network(both: Batch) -> tuple[Any, Any]:
        array = both.cpu().numpy()
        feed = {"t1w": np.ascontiguousarray(array[:, :1]), "flair": np.ascontiguousarray(array[:, 1:])}
        fused, probability = session.run(["fused", "probability"], feed)
        return torch.from_numpy(fused), torch.from_numpy(probability)

    return through_monai(setting, network)


def open_openvino_fp32(setting: Setting) -> Run:
    """The bundle's graph in OpenVINO, float32."""
    return _open_openvino(setting, "f32")


def open_openvino_bf16(setting: Setting) -> Run:
    """The bundle's graph in OpenVINO, bfloat16."""
    return _open_openvino(setting, "bf16")


def _open_openvino(setting: Setting, hint: str) -> Run:
    import torch

    from rmr_sdk.engines.openvino import openvino_core

    core = openvino_core()
    if hint == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise Unavailable("this CPU does not compute in bfloat16")
    options = {
        "INFERENCE_PRECISION_HINT": hint,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": setting.threads,
    }
    compiled = core.compile_model(core.read_model(_graph(setting)), "CPU", options)
    request = compiled.create_infer_request()

    def network(both: Batch) -> tuple[Any, Any]:
        array = both.numpy()
        feed = {"t1w": np.ascontiguousarray(array[:, :1]), "flair": np.ascontiguousarray(array[:, 1:])}
        found = request.infer(feed)
        return torch.from_numpy(found["fused"]), torch.from_numpy(found["probability"])

    return through_monai(setting, network)


def open_torch_tensorrt(setting: Setting) -> Run:
    """Torch-TensorRT in float16, through torch.compile."""
    import torch
    import torch_tensorrt  # noqa: F401 - registers the backend

    module = torch.compile(load_module(setting), backend="tensorrt", dynamic=False)
    return through_monai(setting, module, "float16")


def open_nnunet(setting: Setting) -> Run:
    """nnU-Net's predictor: its own steps, window, half-precision sums and prefetching thread; no mirroring."""
    import torch

    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        os.environ.setdefault(name, os.devnull)  # it prints a warning for each that is not set
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        predictor_class = importlib.import_module("nnunetv2.inference.predict_from_raw_data").nnUNetPredictor
    module = load_module(setting)

    class Stacked(torch.nn.Module):
        """Both outputs as channels of one, which is what the loop adds up."""

        def forward(self, both: Any) -> Any:
            fused, probability = module(both)
            return torch.cat([probability, fused], 1)

    predictor = predictor_class(
        tile_step_size=1 - setting.overlap,
        use_gaussian=True,
        use_mirroring=False,
        perform_everything_on_device=True,
        device=torch.device(setting.device),
        allow_tqdm=False,
    )
    predictor.network = Stacked()
    predictor.configuration_manager = SimpleNamespace(patch_size=setting.tile_shape)
    predictor.label_manager = SimpleNamespace(num_segmentation_heads=setting.classes + 1)

    def run(inputs: FloatArray) -> Answer:
        with torch.inference_mode():
            found = predictor.predict_sliding_window_return_logits(torch.from_numpy(inputs[0])).cpu()
            labels = found[: setting.classes].argmax(0).to(torch.uint8)
        return found[-1].float().numpy(), labels.numpy()

    torch.set_num_threads(setting.threads)  # importing nnU-Net may change it
    return run


def open_torchio(setting: Setting) -> Run:
    """TorchIO's grid, Hann window."""
    import torch
    import torchio

    module = load_module(setting)
    overlap = tuple(2 * round(size * setting.overlap / 2) for size in setting.tile_shape)

    def run(inputs: FloatArray) -> Answer:
        subject = torchio.Subject(image=torchio.ScalarImage(tensor=torch.from_numpy(inputs[0])))
        sampler = torchio.GridSampler(subject, setting.tile_shape, overlap)
        aggregator = torchio.GridAggregator(sampler, overlap_mode="hann")
        with torch.inference_mode():
            for patch in torch.utils.data.DataLoader(sampler, batch_size=1, num_workers=0):
                fused, probability = module(patch["image"][torchio.DATA].to(setting.device))
                aggregator.add_batch(torch.cat([probability, fused], 1).cpu(), patch[torchio.LOCATION])
        found = aggregator.get_output_tensor()
        labels = found[: setting.classes].argmax(0).to(torch.uint8)
        return found[-1].numpy(), labels.numpy()

    return run


def _graph(setting: Setting) -> bytes:
    from rmr_sdk.bundle import Bundle

    return Bundle.open(setting.bundle).graph("fp32")


@dataclass(frozen=True)
class StudyPeer:
    """One way to run the study outside this SDK.

    Attributes:
        name: What tables call it.
        open: Makes it ready.
        needs: Modules that it imports.
        devices: What it is measured on.
    """

    name: str
    open: Callable[[Setting], Run]
    needs: tuple[str, ...]
    devices: tuple[str, ...] = ("cpu", "cuda")

    def why_not(self, device: str) -> str:
        """Say why it cannot run here; nothing where it can."""
        if device not in self.devices:
            return f"not for {device}"
        missing = [module for module in self.needs if find_spec(module) is None]
        return f"not installed: {', '.join(missing)}" if missing else ""


_TORCH = ("torch", "monai")
EAGER = "torch eager + MONAI, fp32"

STUDY_PEERS = {
    peer.name: peer
    for peer in (
        StudyPeer(EAGER, open_eager, _TORCH),
        StudyPeer("torch autocast + MONAI", open_autocast, _TORCH),
        StudyPeer("torch.compile + MONAI, fp32", open_compiled, _TORCH),
        StudyPeer("torch.compile + autocast + MONAI", open_compiled_autocast, _TORCH),
        StudyPeer("ONNX Runtime + MONAI, fp32", open_onnxruntime, (*_TORCH, "onnxruntime")),
        StudyPeer("OpenVINO + MONAI, fp32", open_openvino_fp32, (*_TORCH, "openvino"), ("cpu",)),
        StudyPeer("OpenVINO + MONAI, bf16", open_openvino_bf16, (*_TORCH, "openvino"), ("cpu",)),
        StudyPeer(
            "nnU-Net predictor, torch eager, fp32", open_nnunet, ("torch", "nnunetv2", "acvl_utils", "batchgenerators")
        ),
        StudyPeer("TorchIO grid, torch eager, fp32", open_torchio, ("torch", "torchio")),
        StudyPeer("Torch-TensorRT + MONAI, fp16", open_torch_tensorrt, (*_TORCH, "torch_tensorrt"), ("cuda",)),
    )
}


def silence() -> None:
    """Keep what libraries print away from the standard output, which answers go to."""
    sys.stdout.flush()
    os.dup2(2, 1)

"""From a checkpoint to a network; to add an architecture, add its file beside this one and a branch here."""

from __future__ import annotations

from typing import Any

from torch import nn

from napari_sam_med.errors import ModelError
from napari_sam_med.sam.checkpoints import Checkpoint, StateDict

__all__ = ["build_decoder", "build_network"]


def build_decoder(checkpoint: Checkpoint) -> nn.Module:
    """The network of a checkpoint without its image encoder, in eval mode, on the cpu.

    It satisfies `Architecture` but for `encode`, and answers from embeddings that were made before.

    Raises
    ------
    ModelError
        When the weights do not fit the architecture.
    """
    network: Any
    if checkpoint.record.architecture == "nano":
        from napari_sam_med.sam.architectures.nano import Nano

        network = Nano()
    else:
        from napari_sam_med.sam.architectures.meta import build_sam_decoder

        network = build_sam_decoder()
    encoder = network.parts["image_encoder"]
    setattr(network, encoder.removesuffix("."), nn.Identity())
    rest = {name: value for name, value in checkpoint.state_dict.items() if not name.startswith(encoder)}
    return _with_weights(network, rest, checkpoint)


def build_network(checkpoint: Checkpoint, *, for_inference: bool = False) -> nn.Module:
    """The network of a checkpoint with its weights, in eval mode, on the cpu; it satisfies `Architecture`.

    Parameters
    ----------
    checkpoint : Checkpoint
    for_inference : bool
        Fold what can be folded: the same function, faster, but with other weights than the checkpoint's, so
        not to be trained or saved. The ViT encoders take an attention that needs a fraction of the memory.

    Raises
    ------
    ModelError
        When the weights do not fit the architecture.
    """
    architecture = checkpoint.record.architecture
    if architecture == "nano":
        from napari_sam_med.sam.architectures.nano import Nano

        nano = Nano()
        _with_weights(nano, checkpoint.state_dict, checkpoint)
        return nano.fuse() if for_inference else nano
    if architecture == "tiny_vit":
        from napari_sam_med.sam.architectures.tiny_vit import (
            build_mobile_sam,
            from_mobile_sam_keys,
            fuse_batch_norm,
        )

        mobile_sam = build_mobile_sam()
        _with_weights(mobile_sam, from_mobile_sam_keys(checkpoint.state_dict), checkpoint)
        if for_inference:
            fuse_batch_norm(mobile_sam.image_encoder)
        return mobile_sam
    from napari_sam_med.sam.architectures.meta import build_sam_vit
    from napari_sam_med.sam.architectures.vit_attention import use_fast_attention

    sam = build_sam_vit(architecture)
    _with_weights(sam, checkpoint.state_dict, checkpoint)
    if for_inference:
        use_fast_attention(sam.image_encoder)
    return sam


def _with_weights(network: nn.Module, state_dict: StateDict, checkpoint: Checkpoint) -> nn.Module:
    try:
        network.load_state_dict(state_dict, strict=True)
    except RuntimeError as error:
        reasons = " ".join(str(error).split())[:300]
        raise ModelError(
            f"{checkpoint.path.name} does not fit {checkpoint.record.architecture} ({reasons}); "
            "use an unchanged checkpoint of that architecture."
        ) from error
    return network.eval()

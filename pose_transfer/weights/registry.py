# SPDX-License-Identifier: GPL-3.0-or-later
"""The one table of model files that the pack can use and does not ship. No torch, no network.

Every size and sha256 here was published: in the Git LFS pointer of the page that holds the file, or
with a recorded download of that very revision. Where nothing was published both are None, and a
download says which hash it got.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from .entries import Archive, Model, WeightFile, readable_size

HUGGING_FACE = "https://huggingface.co"
INSIGHTFACE = "https://github.com/deepinsight/insightface/releases/download/model-zoo"
INSIGHTFACE_LICENCE = "insightface's own: non-commercial research only"

_LANDMARKS_AND_AGE = (
    WeightFile(
        "1k3d68.onnx",
        None,
        143_607_619,
        "df5c06b8a0c12e422b2ed8947b8869faa4105387f199c477af038aa01f9a45cc",
    ),
    WeightFile(
        "2d106det.onnx",
        None,
        5_030_888,
        "f001b856447c413801ef5c42091ed0cd516fcd21f2d6b79635b1e733a7109dbf",
    ),
    WeightFile(
        "genderage.onnx",
        None,
        1_322_532,
        "4fde69b1c810857b88c64a335084f1c3fe8f01246c9a191b48c7bb756d6652fb",
    ),
)

MODELS: tuple[Model, ...] = (
    Model(
        name="fpdm",
        folder="pose_transfer/fpdm",
        # The checkpoint holds the UNet, the autoencoder, the DINOv2 and the CLIP tower as well:
        # nothing of Stable Diffusion has to be fetched beside it.
        files=(
            WeightFile(
                "fpdm_stage2.ckpt",
                "https://drive.usercontent.google.com/download"
                "?id=1PSzsQdNCli36BsInOwkvWZUZFPfGKweo&export=download&confirm=t",
            ),
        ),
        licence="MIT; trained on DeepFashion, a dataset for research only",
        needed_by="Load FPDM",
        source="https://github.com/dhlee-work/FPDM",
    ),
    Model(
        name="fpdm_stage1",
        folder="pose_transfer/fpdm",
        files=(
            WeightFile(
                "fpdm_stage1.ckpt",
                "https://drive.usercontent.google.com/download"
                "?id=10XuiPD2PdBu7kBUiUZRPFfLhUvspbCPa&export=download&confirm=t",
            ),
        ),
        licence="MIT; trained on DeepFashion, a dataset for research only",
        needed_by="training FPDM; stage 2 holds a copy",
        source="https://github.com/dhlee-work/FPDM",
    ),
    Model(
        name="dwpose",
        folder="pose_transfer/pose",
        files=(
            WeightFile(
                "yolox_l.onnx",
                f"{HUGGING_FACE}/yzd-v/DWPose/resolve/main/yolox_l.onnx",
                216_746_733,
                "7860ae79de6c89a3c1eb72ae9a2756c0ccfbe04b7791bb5880afabd97855a411",
            ),
            WeightFile(
                "dw-ll_ucoco_384.onnx",
                f"{HUGGING_FACE}/yzd-v/DWPose/resolve/main/dw-ll_ucoco_384.onnx",
                134_399_116,
                "724f4ff2439ed61afb86fb8a1951ec39c6220682803b4a8bd4f598cd913b1843",
            ),
        ),
        licence="Apache-2.0",
        needed_by="Detect Pose (DWPose)",
        source=f"{HUGGING_FACE}/yzd-v/DWPose",
    ),
    Model(
        name="openpose",
        folder="pose_transfer/pose",
        files=(
            WeightFile(
                "body_pose_model.pth",
                f"{HUGGING_FACE}/lllyasviel/Annotators/resolve/main/body_pose_model.pth",
                209_267_595,
                "25a948c16078b0f08e236bda51a385d855ef4c153598947c28c0d47ed94bb746",
            ),
            WeightFile(
                "hand_pose_model.pth",
                f"{HUGGING_FACE}/lllyasviel/Annotators/resolve/main/hand_pose_model.pth",
                147_341_049,
                "b76b00d1750901abd07b9f9d8c98cc3385b8fe834a26d4b4f0aad439e75fc600",
            ),
            WeightFile(
                "facenet.pth",
                f"{HUGGING_FACE}/lllyasviel/Annotators/resolve/main/facenet.pth",
                153_718_792,
                "8beb52e548624ffcc4aed12af7aee7dcbfaeea420c75609fee999fe7add79d43",
            ),
        ),
        licence="OpenPose's own: academic or non-profit, non-commercial research only",
        commercial_use=False,
        needed_by="Detect Pose (OpenPose)",
        source=f"{HUGGING_FACE}/lllyasviel/Annotators",
    ),
    Model(
        name="segformer_b2_clothes",
        folder="pose_transfer/parsing/segformer_b2_clothes",
        files=tuple(
            WeightFile(
                path,
                # Pinned: the hash of the settings was published for this revision.
                f"{HUGGING_FACE}/mattmdjaga/segformer_b2_clothes/resolve/"
                f"584abc1e1d260e23c0fc627c5217a09b2b461046/{path}",
                size,
                sha256,
            )
            for path, size, sha256 in (
                (
                    "config.json",
                    1_727,
                    "4b5127ca00fe61187b6cc6c232c9e19326ed228683f8f5c221790be9cc196a6e",
                ),
                (
                    "model.safetensors",
                    109_493_236,
                    "8f86fd90c567afd4370b3cc3a7e81ed767a632b2832a738331af660acc0c4c68",
                ),
            )
        ),
        licence="MIT by its page; derived from NVIDIA's SegFormer: non-commercial research",
        commercial_use=False,
        needed_by="Parse Person (SegFormer clothes)",
        source=f"{HUGGING_FACE}/mattmdjaga/segformer_b2_clothes",
    ),
    Model(
        name="schp_atr",
        folder="pose_transfer/parsing",
        files=(
            WeightFile(
                "parsing_atr.onnx",
                f"{HUGGING_FACE}/basso4/humanparsing/resolve/main/parsing_atr.onnx",
                266_859_305,
                "04c7d1d070d0e0ae943d86b18cb5aaaea9e278d97462e9cfb270cbbe4cd977f4",
            ),
        ),
        licence="MIT (SCHP); this export also came with OOTDiffusion under CC BY-NC-SA 4.0",
        commercial_use=False,
        needed_by="Parse Person (SCHP ATR)",
        source=f"{HUGGING_FACE}/basso4/humanparsing",
    ),
    Model(
        name="schp_lip",
        folder="pose_transfer/parsing",
        files=(
            WeightFile(
                "parsing_lip.onnx",
                f"{HUGGING_FACE}/basso4/humanparsing/resolve/main/parsing_lip.onnx",
                266_863_411,
                "8436e1dae96e2601c373d1ace29c8f0978b16357d9038c17a8ba756cca376dbc",
            ),
        ),
        licence="MIT (SCHP); this export also came with OOTDiffusion under CC BY-NC-SA 4.0",
        commercial_use=False,
        needed_by="Parse Person (SCHP LIP)",
        source=f"{HUGGING_FACE}/basso4/humanparsing",
    ),
    Model(
        name="antelopev2",
        folder="insightface/models/antelopev2",
        archive=Archive(
            f"{INSIGHTFACE}/antelopev2.zip",
            360_662_982,
            "8e182f14fc6e80b3bfa375b33eb6cff7ee05d8ef7633e738d1c89021dcf0c5c5",
        ),
        files=(
            *_LANDMARKS_AND_AGE,
            WeightFile(
                "scrfd_10g_bnkps.onnx",
                None,
                16_923_827,
                "5838f7fe053675b1c7a08b633df49e7af5495cee0493c7dcf6697200b85b5b91",
            ),
            WeightFile(
                "glintr100.onnx",
                None,
                260_665_334,
                "4ab1d6435d639628a6f3e5008dd4f929edf4c4124b1a7169e1048f9fef534cdf",
            ),
        ),
        licence=INSIGHTFACE_LICENCE,
        commercial_use=False,
        needed_by="Face Embedding (antelopev2), OnePoseTrans",
        source="https://github.com/deepinsight/insightface/releases/tag/model-zoo",
    ),
    Model(
        name="buffalo_l",
        folder="insightface/models/buffalo_l",
        archive=Archive(
            f"{INSIGHTFACE}/buffalo_l.zip",
            288_621_354,
            "80ffe37d8a5940d59a7384c201a2a38d4741f2f3c51eef46ebb28218a7b0ca2f",
        ),
        files=(
            *_LANDMARKS_AND_AGE,
            WeightFile(
                "det_10g.onnx",
                None,
                16_923_827,
                "5838f7fe053675b1c7a08b633df49e7af5495cee0493c7dcf6697200b85b5b91",
            ),
            WeightFile(
                "w600k_r50.onnx",
                None,
                174_383_860,
                "4c06341c33c2ca1f86781dab0e829f88ad5b64be9fba56e56bc9ebdefc619e43",
            ),
        ),
        licence=INSIGHTFACE_LICENCE,
        commercial_use=False,
        needed_by="Face Embedding (buffalo_l)",
        source="https://github.com/deepinsight/insightface/releases/tag/model-zoo",
    ),
    Model(
        name="ip_adapter_sdxl",
        folder="ipadapter",
        files=(
            WeightFile(
                "ip-adapter_sdxl_vit-h.safetensors",
                f"{HUGGING_FACE}/h94/IP-Adapter/resolve/main/sdxl_models/"
                "ip-adapter_sdxl_vit-h.safetensors",
                698_391_064,
                "ebf05d918348aec7abb02a5e9ecef77e0aaea6914a5c4ea13f50d45eb1681831",
            ),
        ),
        licence="Apache-2.0",
        needed_by="OnePoseTrans on SDXL (image tokens)",
        source=f"{HUGGING_FACE}/h94/IP-Adapter",
    ),
    Model(
        name="clip_vit_h",
        folder="clip_vision",
        files=(
            WeightFile(
                "CLIP-ViT-H-14-laion2B-s32B-b79K.safetensors",
                f"{HUGGING_FACE}/h94/IP-Adapter/resolve/main/models/image_encoder/"
                "model.safetensors",
                2_528_373_448,
                "6ca9667da1ca9e0b0f75e46bb030f7e011f44f86cbfb8d5a36590fcd7507b030",
            ),
        ),
        licence="Apache-2.0 by its page; weights by LAION",
        needed_by="OnePoseTrans (image encoder of both IP-Adapters)",
        source=f"{HUGGING_FACE}/h94/IP-Adapter",
    ),
    Model(
        name="instantid",
        folder="instantid",
        files=(
            WeightFile(
                "ip-adapter.bin",
                f"{HUGGING_FACE}/InstantX/InstantID/resolve/main/ip-adapter.bin",
                1_691_134_141,
                "02b3618e36d803784166660520098089a81388e61a93ef8002aa79a5b1c546e1",
            ),
        ),
        licence="Apache-2.0 by its page; works only with insightface's antelopev2",
        commercial_use=False,
        needed_by="OnePoseTrans on SDXL (face tokens)",
        source=f"{HUGGING_FACE}/InstantX/InstantID",
    ),
    Model(
        name="controlnet_openpose_sdxl",
        folder="controlnet",
        files=(
            WeightFile(
                "xinsir-controlnet-openpose-sdxl-1.0.safetensors",
                f"{HUGGING_FACE}/xinsir/controlnet-openpose-sdxl-1.0/resolve/main/"
                "diffusion_pytorch_model.safetensors",
                2_502_139_104,
                "b8524e557a7df60d081f5d4a0eb109967d107df217943bf88c2d99b9ebcc06c5",
            ),
        ),
        licence="Apache-2.0",
        needed_by="OnePoseTrans on SDXL (pose)",
        source=f"{HUGGING_FACE}/xinsir/controlnet-openpose-sdxl-1.0",
    ),
    Model(
        name="sdxl_base",
        folder="checkpoints",
        files=(
            WeightFile(
                "sd_xl_base_1.0.safetensors",
                f"{HUGGING_FACE}/stabilityai/stable-diffusion-xl-base-1.0/resolve/main/"
                "sd_xl_base_1.0.safetensors",
                6_938_078_334,
                "31e35c80fc4829d14f90153f4c74cd59c90b779f6afe05a74cd6120b893f7e5b",
            ),
        ),
        licence="CreativeML Open RAIL++-M",
        needed_by="OnePoseTrans on SDXL, or any other SDXL checkpoint",
        source=f"{HUGGING_FACE}/stabilityai/stable-diffusion-xl-base-1.0",
    ),
    Model(
        name="sd15",
        folder="checkpoints",
        files=(
            WeightFile(
                "v1-5-pruned-emaonly-fp16.safetensors",
                f"{HUGGING_FACE}/Comfy-Org/stable-diffusion-v1-5-archive/resolve/main/"
                "v1-5-pruned-emaonly-fp16.safetensors",
            ),
        ),
        licence="CreativeML Open RAIL-M",
        needed_by="OnePoseTrans on Stable Diffusion 1.5, or any other checkpoint of it",
        source=f"{HUGGING_FACE}/Comfy-Org/stable-diffusion-v1-5-archive",
    ),
    Model(
        name="ip_adapter_sd15",
        folder="ipadapter",
        files=(
            WeightFile(
                "ip-adapter_sd15.safetensors",
                f"{HUGGING_FACE}/h94/IP-Adapter/resolve/main/models/ip-adapter_sd15.safetensors",
            ),
        ),
        licence="Apache-2.0",
        needed_by="OnePoseTrans on Stable Diffusion 1.5 (image tokens)",
        source=f"{HUGGING_FACE}/h94/IP-Adapter",
    ),
    Model(
        name="controlnet_openpose_sd15",
        folder="controlnet",
        files=(
            WeightFile(
                "control_v11p_sd15_openpose_fp16.safetensors",
                f"{HUGGING_FACE}/comfyanonymous/ControlNet-v1-1_fp16_safetensors/resolve/main/"
                "control_v11p_sd15_openpose_fp16.safetensors",
            ),
        ),
        licence="OpenRAIL",
        needed_by="OnePoseTrans on Stable Diffusion 1.5 (pose)",
        source=f"{HUGGING_FACE}/comfyanonymous/ControlNet-v1-1_fp16_safetensors",
    ),
    Model(
        name="leffa_pose_transfer",
        folder="pose_transfer/truepose",
        # TruePose itself released no weights; these have the nearest layout.
        files=(
            WeightFile(
                "leffa_pose_transfer.pth",
                f"{HUGGING_FACE}/franciszzj/Leffa/resolve/main/pose_transfer.pth",
                20_876_062_782,
                "3d8c4acf1e6737a846a67690ac4e109fc7cf4bc7a8186fe4f73115274182a766",
            ),
        ),
        licence="MIT by its page; trained on DeepFashion, a dataset for research only",
        needed_by="TruePose with trained weights (optional)",
        source=f"{HUGGING_FACE}/franciszzj/Leffa",
    ),
)


def find_model(name: str) -> Model:
    """The model of that name; ValueError names all."""
    for model in MODELS:
        if model.name == name:
            return model
    raise ValueError(
        f"There is no model called {name!r}. Known: {', '.join(m.name for m in MODELS)}."
    )


def missing(name: str, searched_folders: Iterable[str | Path], files: Iterable[str] = ()) -> str:
    """What to say when a model's files are not there: the text of a CheckpointError.

    It names the files, the folders that were searched, size, licence, the page that they come from,
    the command that downloads them, and where to put them by hand.

    Args:
        name: the model's name in `MODELS`, for example "dwpose".
        searched_folders: where it was looked for. One that ends like the model's own folder, or
            with the beginning of it, tells the command where the host keeps its models.
        files: paths of `Model.files` that lack; all of the model's where it is empty.
    """
    model = find_model(name)
    lacking = ", ".join(files) or ", ".join(file.path for file in model.files)
    searched = [str(folder) for folder in searched_folders]
    models = _models_folder(model, searched)
    target = Path(models or "ComfyUI/models", *model.folder.split("/"))
    return (
        f"The model files of {name} are not there: {lacking}. "
        f"Searched: {', '.join(searched) or 'no folder'}. "
        f"Size: {readable_size(model.download_size)}. Licence: {model.terms}.\n"
        f"To download them, run:\n    {download_command(name, models)}\n"
        f"Or get them by hand from {model.source} and put them into {target}"
    )


def download_command(name: str, models: str | Path | None = None) -> str:
    """The command that works in any folder, by this Python, as a shell takes it.

    It names the package by its path: the Python that comes with ComfyUI for Windows looks for
    modules in no folder but its own.
    """
    command = [sys.executable, str(Path(__file__).absolute().parent), "download", name]
    if models:
        command += ["--models", str(models)]
    return subprocess.list2cmdline(command) if os.name == "nt" else shlex.join(command)


def _models_folder(model: Model, searched: list[str]) -> str | None:
    """The host's `models`, told from a searched folder that ends like the model's own."""
    below = tuple(model.folder.split("/"))
    for folder in searched:
        parts = Path(folder).parts
        for count in range(len(below), 0, -1):
            if parts[-count:] == below[:count]:
                return str(Path(*parts[:-count]))
    return None

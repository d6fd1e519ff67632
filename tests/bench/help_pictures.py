# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes the pictures of the help pages (web/docs/images) with the demo, in the real host.

python tests/bench/help_pictures.py [fpdm|people|film|attention|one-shot]...   # default: all

COMFYUI_PATH: ComfyUI's folder.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
from picture_rows import side_by_side
from PIL import Image

PACK = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(PACK))

from pose_transfer.client import ComfyClient, ComfyServer, load_workflow  # noqa: E402
from pose_transfer.evaluation import one_shot  # noqa: E402
from pose_transfer.mannequin import render  # noqa: E402
from pose_transfer.pose import write_keypoints  # noqa: E402

IMAGES = PACK / "web" / "docs" / "images"
DEMO = PACK / "workflows" / "api" / "fpdm_demo.json"
POSES = (9, 39, 69)
HEIGHT = 224
"""Of a picture in a row, px."""

Pictures = dict[str, Image.Image]


async def pictures(client: ComfyClient, **changes: dict[str, Any]) -> Pictures:
    """Source, pose map, result and truth of the demo; `changes`: inputs by a node's title."""
    workflow = load_workflow(DEMO)
    titles = {node["_meta"]["title"]: node_id for node_id, node in workflow.items()}
    for number, (title, origin, slot) in enumerate(
        [("source", "Person", 0), ("pose map", "Draw target pose", 0), ("truth", "Person", 2)], 900
    ):
        workflow[str(number)] = {
            "class_type": "SaveImage",
            "inputs": {"images": [titles[origin], slot], "filename_prefix": "help"},
            "_meta": {"title": title},
        }
    overrides = {title.replace("_", " "): inputs for title, inputs in changes.items()}
    result = await client.run(workflow, overrides, 600)
    saved = {title: Image.open(io.BytesIO(data[0])) for title, data in result.images.items()}
    return {**saved, "result": saved["Save result"]}


def row(path: Path, *shown: Image.Image) -> None:
    """The pictures side by side, as a JPEG."""
    side_by_side(shown, HEIGHT).save(path, quality=85)


def brightest(frames: list[Image.Image]) -> Image.Image:
    """All frames in one picture: the way that each point goes."""
    return Image.fromarray(np.max([np.asarray(frame.convert("RGB")) for frame in frames], axis=0))


class Graph:
    """A workflow, put together node by node; inputs that are left out have their defaults."""

    def __init__(self, node_info: dict[str, Any]):
        self.node_info = node_info
        self.nodes: dict[str, Any] = {}

    def add(self, class_type: str, **inputs: Any) -> Callable[[int], list[Any]]:
        """Adds a node; returns what gives its outputs by number, to be inputs of others."""
        values = {}
        required = self.node_info[class_type]["input"].get("required", {})
        for name, (_, *options) in required.items():
            if options and "default" in options[0]:
                values[name] = options[0]["default"]
        name = str(len(self.nodes) + 1)
        self.nodes[name] = {"class_type": class_type, "inputs": values | inputs, "_meta": {}}
        return lambda slot: [name, slot]

    def show(self, title: str, picture: list[Any]) -> None:
        """Wants that IMAGE under the title."""
        self.add("SaveImage", images=picture, filename_prefix="help")
        self.nodes[str(len(self.nodes))]["_meta"] = {"title": title}

    async def run(self, client: ComfyClient) -> dict[str, list[Image.Image]]:
        """The wanted pictures."""
        result = await client.run(self.nodes, None, 600)
        return {k: [Image.open(io.BytesIO(x)) for x in data] for k, data in result.images.items()}


async def make_people(client: ComfyClient) -> None:
    """Poses and persons: what needs no sampling."""
    graph = Graph(await client.object_info())
    add, show = graph.add, graph.show
    demo = "mannequin (demo)"

    person = add("PoseTransferDemoPerson", identity=49, source_pose=79, target_pose=9)
    other = add("PoseTransferDemoPerson", identity=109, source_pose=29, target_pose=9)
    found = add("PoseTransferDetectPose", image=person(0), detector=demo)
    taken = add("PoseTransferDetectPose", image=other(0), detector=demo)
    show("person", person(0))
    show("truth", person(2))
    show("other", other(0))
    show("found", found(1))
    show("taken", taken(1))
    for style in ("openpose", "dwpose", "fpdm"):
        show(style, add("PoseTransferDrawPose", pose=found(0), style=style)(0))
    retargeted = add(
        "PoseTransferRetargetPose", source_pose=found(0), target_pose=taken(0),
        source_image=person(0),
    )  # fmt: skip
    show("overlay", retargeted(1))
    show("retargeted", add("PoseTransferDrawPose", pose=retargeted(0), style="openpose")(0))

    pasted = json.dumps(write_keypoints([render(49, 29).pose]))
    loaded = add("PoseTransferLoadPose", text=pasted)
    saved = add("PoseTransferSavePose", pose=loaded(0), filename_prefix="help")
    show("loaded", add("PoseTransferDrawPose", pose=saved(0), style="openpose")(0))
    edited = add("PoseTransferEditPose", pose=pasted, image=person(0))
    show("edited", edited(1))

    parsed = add("PoseTransferParsePerson", image=person(0), parser=demo)
    show("palette", parsed(1))
    upper = add("PoseTransferRegionMask", parsing=parsed(0), upper=True, grow=1.0)
    show("upper", add("MaskToImage", mask=upper(0))(0))
    behind = add("PoseTransferParsePerson", image=other(0), parser=demo)
    composed = add(
        "PoseTransferCompositePerson", person=person(0), person_parsing=parsed(0),
        background=other(0), source_parsing=behind(0), placement="source person",
    )  # fmt: skip
    show("composite", composed(0))
    show("hole", add("MaskToImage", mask=composed(2))(0))
    face = add("PoseTransferFaceEmbedding", image=person(0), encoder=demo, crop_size=256)
    show("crop", face(1))
    show("face mask", add("MaskToImage", mask=face(3))(0))

    motion = add(
        "PoseTransferDemoMotion", identity=49, start_pose=79, end_pose=9, frames=9, loop=False
    )
    show("motion", motion(1))
    show("motion poses", add("PoseTransferDrawPose", pose=motion(0), style="openpose")(0))
    # A person at rest whose every detection trembles by 1.5 px.
    random, rest = np.random.default_rng(0), write_keypoints([render(49, 29).pose] * 12)
    for frame in rest:
        for body in frame["people"]:
            points = np.array(body["pose_keypoints_2d"]).reshape(-1, 3)
            points[:, :2] += np.where(points[:, 2:] > 0, random.normal(0, 1.5, (len(points), 2)), 0)
            body["pose_keypoints_2d"] = points.ravel().tolist()
    trembling = add("PoseTransferLoadPose", text=json.dumps(rest))
    calm = add("PoseTransferSmoothPose", pose=trembling(0), frame_rate=24.0, min_cutoff=0.3)
    for title, pose in (("trembling", trembling), ("calm", calm)):
        show(title, add("PoseTransferDrawPose", pose=pose(0), style="openpose")(0))

    made = await graph.run(client)
    one = {title: pictures[0] for title, pictures in made.items()}

    def sheet(name: str, *titles: str) -> None:
        row(IMAGES / f"{name}.jpg", *(one[title] for title in titles))

    sheet("detect_pose", "person", "found", "other", "taken")
    sheet("draw_pose", "openpose", "dwpose", "fpdm")
    sheet("retarget_pose", "person", "taken", "overlay", "retargeted")
    sheet("load_pose", "loaded")
    sheet("edit_pose", "person", "edited")
    sheet("parse_person", "person", "palette")
    sheet("region_mask", "person", "upper")
    sheet("composite_person", "person", "other", "composite", "hole")
    sheet("face_embedding", "person", "crop", "face mask")
    sheet("demo_person", "person", "found", "truth")
    row(IMAGES / "demo_motion.jpg", *made["motion"][::2], brightest(made["motion poses"]))
    row(IMAGES / "smooth_pose.jpg", brightest(made["trembling"]), brightest(made["calm"]))


async def make_film(client: ComfyClient) -> None:
    """FPDM Sequence: some frames of a film."""
    workflow = PACK / "workflows" / "api" / "fpdm_sequence.json"
    graph = load_workflow(workflow)
    titles = {node["_meta"]["title"]: node_id for node_id, node in graph.items()}
    for title, origin in (("frames", "FPDM sequence"), ("poses", "Draw poses")):
        graph[title] = {
            "class_type": "SaveImage",
            "inputs": {"images": [titles[origin], 0], "filename_prefix": "help"},
            "_meta": {"title": title},
        }
    result = await client.run(graph, {"Motion": {"frames": 4, "loop": False}}, 600)
    films = (result.images["poses"], result.images["frames"])
    pairs = [Image.open(io.BytesIO(x)) for both in zip(*films, strict=True) for x in both]
    row(IMAGES / "fpdm_sequence.jpg", *pairs)


async def make_attention(client: ComfyClient) -> None:
    """Attention Maps: where the demo looks, guided without a trained pair."""
    graph = Graph(await client.object_info())
    add, show = graph.add, graph.show
    person = add("PoseTransferDemoPerson", identity=49, source_pose=79, target_pose=9)
    models = add("PoseTransferDemoModels")
    drawn = add("PoseTransferDrawPose", pose=person(1), style="fpdm")
    fusion = add("PoseTransferFusionEmbedding", fpdm=models(3), source=person(0), pose_map=drawn(0))
    applied = add(
        "PoseTransferApplyFPDM", model=models(0), fpdm=models(3), source=person(0),
        pose_map=drawn(0), fusion_embedding=fusion(0),
    )  # fmt: skip
    seen = add(
        "PoseTransferSourceFeatures", model=applied(0), vae=models(2), source=person(0),
        parsing=person(5), conditioning=applied(1),
    )  # fmt: skip
    guided = add(
        "PoseTransferGuideAttention", model=applied(0), source_features=seen(0),
        target_pose=person(1), record=True,
    )  # fmt: skip
    sampled = add(
        "KSampler", model=guided(0), positive=applied(1), negative=applied(2),
        latent_image=applied(3), seed=1, steps=12, cfg=2.0, sampler_name="euler",
        scheduler="sgm_uniform", denoise=1.0,
    )  # fmt: skip
    maps = add("PoseTransferAttentionMaps", record=guided(1), latent=sampled(0))
    show("source", person(0))
    show("result", add("VAEDecode", samples=maps(2), vae=models(2))(0))
    show("maps", maps(0))
    made = await graph.run(client)
    row(IMAGES / "attention_maps.jpg", *(made[title][0] for title in ("source", "result", "maps")))


async def make_one_shot(client: ComfyClient) -> None:
    """OnePoseTrans: what tuning learns in how many steps, and what each part brings."""
    workflow = load_workflow(PACK / "workflows" / "api" / "oneposetrans_demo.json")
    (person,) = one_shot.held_out_persons(1, seed=1)
    drawn = {}
    for name in one_shot.USUAL:
        graph = one_shot.variant(workflow, name, person, "zigzag")
        tuning = next(i for i, n in graph.items() if n["_meta"]["title"] == "Tune LoRA")
        if name == "lora":
            graph["previews"] = {
                "class_type": "SaveImage",
                "inputs": {"images": [tuning, 3], "filename_prefix": "help"},
                "_meta": {"title": "previews"},
            }
        result = await client.run(graph, None, 600)
        drawn[name] = Image.open(io.BytesIO(result.images[one_shot.PICTURE][0]))
        if name == "lora":
            previews = [Image.open(io.BytesIO(data)) for data in result.images["previews"]]
    source, truth = (Image.fromarray(x.image) for x in (person.source, person.target))
    row(IMAGES / "tune_lora.jpg", source, *previews)
    row(IMAGES / "apply_lora.jpg", source, drawn["caption"], drawn["lora"], drawn["both"], truth)
    row(IMAGES / "apply_vcm.jpg", source, drawn["caption"], drawn["vcm"], truth)


async def make_fpdm(client: ComfyClient) -> None:
    """FPDM and its guidance."""
    posed = [await pictures(client, Person={"target_pose": pose}) for pose in POSES]
    first = posed[0]
    row(IMAGES / "load_fpdm.jpg", *(first[k] for k in ("source", "pose map", "result", "truth")))
    pairs = [posed_one[k] for posed_one in posed for k in ("pose map", "result")]
    row(IMAGES / "apply_fpdm.jpg", first["source"], *pairs)

    row(IMAGES / "compare.jpg", first["Save comparison"])

    without = await pictures(client, FPDM_guider={"fusion_weight": 0.0})
    shown = first["source"], first["pose map"], without["result"], first["result"]
    row(IMAGES / "fusion_embedding.jpg", *shown, first["truth"])

    weighed = [
        await pictures(client, FPDM_guider={"source_weight": w, "fusion_weight": w})
        for w in (1.0, 4.0, 8.0)
    ]
    results = [weighed[0], first, *weighed[1:]]
    row(IMAGES / "fpdm_guider.jpg", first["source"], *(x["result"] for x in results))


MAKERS: dict[str, Callable[[ComfyClient], Awaitable[None]]] = {
    "fpdm": make_fpdm,
    "people": make_people,
    "film": make_film,
    "attention": make_attention,
    "one-shot": make_one_shot,
}


async def make(address: str, groups: list[str]) -> None:
    """These groups of pictures, from the server at that address."""
    async with ComfyClient(address) as client:
        for group in groups:
            await MAKERS[group](client)


def main() -> None:
    """Starts the host with this pack and makes the pictures that the command line names."""
    IMAGES.mkdir(exist_ok=True)
    comfyui = Path(os.environ["COMFYUI_PATH"])
    with (
        tempfile.TemporaryDirectory() as base,
        ComfyServer(comfyui, Path(base), {"pose-transfer": PACK}) as server,
    ):
        asyncio.run(make(server.address, sys.argv[1:] or list(MAKERS)))


if __name__ == "__main__":
    main()

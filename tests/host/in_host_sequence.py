# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs in a process of the host: films of untrained models, in chunks, stopped and gone on with."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import comfy.model_management as mm
import comfy.samplers
import torch
from comfy_extras.nodes_custom_sampler import Noise_RandomNoise, SamplerCustomAdvanced
from pose_transfer_pack.nodes import fpdm as nodes
from pose_transfer_pack.nodes import loading
from pose_transfer_pack.nodes.patches import sequence as patches
from pose_transfer_pack.nodes.sequence import OWN, SHARED, FPDMSequence
from pose_transfer_pack.pose_transfer.errors import PoseTransferError
from pose_transfer_pack.pose_transfer.images import from_uint8
from pose_transfer_pack.pose_transfer.mannequin.motion import render_motion
from pose_transfer_pack.pose_transfer.pose import draw, write_keypoints
from pose_transfer_pack.pose_transfer.types import Pose
from torch import Tensor

Report = dict[str, Any]
FRAMES, STEPS, PASSES = 5, 2, 3
WEIGHTS = (1.7, 2.6)


@torch.inference_mode()
def check(base_path: str, fpdm_path: str) -> Report:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    FPDMSequence.hidden = SimpleNamespace(unique_id=None)
    world = World(base_path, fpdm_path)
    return {
        **chunks(world),
        **noise(world),
        **stopped(world),
        **memory(world),
        **mistakes(world),
    }


class Spy:
    """A clone of the model that counts its calls, and can be told to fail in one of them."""

    def __init__(self, model: Any) -> None:
        self.batches: list[int] = []
        self.stop_at: int | None = None
        self.largest = 1000
        self.model = model.clone()
        self.model.set_model_unet_function_wrapper(self._call)

    def _call(self, model: Any, call: dict[str, Any]) -> Tensor:
        self.batches.append(len(call["input"]))
        if len(self.batches) == self.stop_at:
            mm.interrupt_current_processing()
        if len(call["input"]) > self.largest:
            raise mm.OOM_EXCEPTION("out of memory")
        return model(call["input"], call["timestep"], **call["c"])


class World:
    def __init__(self, base_path: str, fpdm_path: str) -> None:
        self.demo = loading._load_demo(base_path, fpdm_path)
        self.source = torch.rand(1, 64, 48, 3)
        self.poses = [s.pose for s in render_motion(1, 2, 3, FRAMES, height=64, width=48)]
        self.sampler = comfy.samplers.sampler_object("euler")
        sampling = self.demo.model.get_model_object("model_sampling")
        self.sigmas = comfy.samplers.calculate_sigmas(sampling, "sgm_uniform", STEPS)
        self.looks = 0
        self.demo.fpdm.fpdm.source_tower.register_forward_hook(self._look)

    def _look(self, *_: Any) -> None:
        self.looks += 1

    def film(self, model: Any, poses: Any = None, **changes: Any) -> Tensor:
        values = {
            "source": self.source,
            "source_weight": WEIGHTS[0],
            "fusion_weight": WEIGHTS[1],
            "noise_of_frames": SHARED,
            "width": 0,
            "height": 0,
            "frames_at_once": 1,
            "on_missing": "error",
            "sigmas": self.sigmas,
        }
        poses = write_keypoints(self.poses if poses is None else poses)
        return FPDMSequence.execute(
            model=model,
            fpdm=self.demo.fpdm,
            vae=self.demo.vae,
            pose=poses,
            noise=Noise_RandomNoise(3),
            sampler=self.sampler,
            **values | changes,
        ).result[0]

    def single(self, frame: int) -> Tensor:
        """One frame by the nodes for single pictures."""
        fpdm, pose = self.demo.fpdm, from_uint8(draw(self.poses[frame], 64, 48, "fpdm"))
        (embedding,) = nodes.FusionEmbeddingNode.execute(fpdm, self.source, pose).result
        model, *conditions, latent = nodes.ApplyFPDM.execute(
            self.demo.model, fpdm, self.source, pose, embedding
        ).result
        (guider,) = nodes.FPDMGuiderNode.execute(model, *conditions, *WEIGHTS).result
        made, _ = SamplerCustomAdvanced.execute(
            Noise_RandomNoise(3), guider, self.sampler, self.sigmas, latent
        ).result
        return self.demo.vae.decode(made["samples"])


def difference(a: Tensor, b: Tensor) -> float:
    return (a - b).abs().max().item()


def chunks(world: World) -> Report:
    spies = {size: Spy(world.demo.model) for size in (1, 2, 5)}
    films = {size: world.film(spy.model, frames_at_once=size) for size, spy in spies.items()}
    looks, world.looks = world.looks, 0
    single = torch.cat([world.single(frame) for frame in (0, FRAMES - 1)])
    return {
        "shape": list(films[1].shape),
        "as single pictures": difference(films[1][:: FRAMES - 1], single),
        "frames differ": difference(films[1][0], films[1][-1]),
        "two at once": difference(films[2], films[1]),
        "all at once": difference(films[5], films[1]),
        "batches of two": spies[2].batches,
        "batches of all": spies[5].batches,
        "looks at the source": looks,
    }


def noise(world: World) -> Report:
    long = world.film(Spy(world.demo.model).model, noise_of_frames=OWN)
    short = world.film(Spy(world.demo.model).model, world.poses[:3], noise_of_frames=OWN)
    spy = Spy(world.demo.model)
    still = world.film(spy.model, [world.poses[0]] * 2)
    trembling = world.film(Spy(world.demo.model).model, [world.poses[0]] * 2, noise_of_frames=OWN)
    return {
        "own noise by number": difference(short, long[:3]),
        "same pose, same noise": difference(still[0], still[1]),
        "calls for a still": len(spy.batches),
        "same pose, own noise": difference(trembling[0], trembling[1]),
    }


def stopped(world: World) -> Report:
    expected = world.film(Spy(world.demo.model).model)
    spy = Spy(world.demo.model)
    spy.stop_at = 2 * STEPS + 1  # the first step of the third frame
    try:
        world.film(spy.model)
        raise AssertionError("the film was not stopped")
    except mm.InterruptProcessingException:
        calls = len(spy.batches)
    spy.stop_at = None
    spy.batches.clear()
    rest = world.film(spy.model)
    report = {
        "calls until it stopped": calls,
        "calls for the rest": len(spy.batches),
        "gone on with": difference(rest, expected),
    }
    spy.batches.clear()
    world.film(spy.model)
    report["calls for nothing new"] = len(spy.batches)
    world.film(spy.model, [*world.poses[:2], world.poses[0], *world.poses[3:], world.poses[2]])
    report["calls for known poses in another order"] = len(spy.batches)
    world.film(spy.model, [*world.poses, render_motion(1, 9, 3, 2, height=64, width=48)[0].pose])
    report["calls for one more frame"] = len(spy.batches)
    for name, change in {
        "source": {"source": world.source.flip(1)},
        "weight": {"fusion_weight": 1.2},
        "sigmas": {"sigmas": world.sigmas[1:]},
        "range": {"fusion_end": 0.5},
    }.items():
        spy.batches.clear()
        world.film(spy.model, world.poses[:1], **change)
        report[f"calls after another {name}"] = len(spy.batches)
    return report


class GraphicsCard:
    """The host's memory management, on which the model seems not to run on the processor."""

    def is_device_cpu(self, _device: torch.device) -> bool:
        return False

    def __getattr__(self, name: str) -> Any:
        return getattr(mm, name)


def memory(world: World) -> Report:
    """A film whose chunk did not fit after all; and how many frames the host's numbers allow."""
    expected = world.film(Spy(world.demo.model).model)
    spy = Spy(world.demo.model)
    spy.largest = 2 * PASSES
    halved = world.film(spy.model, frames_at_once=5)
    alone = Spy(world.demo.model)
    alone.largest = 0
    too_short = None
    try:
        world.film(alone.model)
    except mm.OOM_EXCEPTION as error:
        too_short = str(error)

    room = Spy(world.demo.model)
    patches.mm = GraphicsCard()
    free = type(room.model).get_free_memory
    required = world.demo.model.model.memory_required
    # Room for seven predictions and the host's reserve: two frames of three.
    type(room.model).get_free_memory = lambda *_: 7 * 1.5 * 1000.0
    world.demo.model.model.memory_required = lambda shape, cond_shapes=None: shape[0] * 1000.0
    try:
        world.film(room.model, frames_at_once=0)
    finally:
        patches.mm = mm
        type(room.model).get_free_memory = free
        world.demo.model.model.memory_required = required
    return {
        "halved": difference(halved, expected),
        "halved batches": [batch // PASSES for batch in spy.batches],
        "one frame does not fit": too_short,
        "batches that fit": [batch // PASSES for batch in room.batches],
        "most at once": patches.MOST_AT_ONCE,
    }


def mistakes(world: World) -> Report:
    model, nobody = world.demo.model, Pose(48, 64)
    holes = [world.poses[0], nobody, world.poses[1]]

    def message(*args: Any, **changes: Any) -> str:
        try:
            world.film(model, *args, **changes)
        except PoseTransferError as error:
            return str(error)
        raise AssertionError("no error")

    skipped = world.film(model, holes, on_missing="skip")
    held = world.film(model, holes, on_missing="previous")
    sized = world.film(model, world.poses[:1], width=33, height=46)
    return {
        "empty frame": message(holes),
        "two sources": message(source=world.source.repeat(2, 1, 1, 1)),
        "no steps": message(sigmas=world.sigmas[:0]),
        "range": message(fusion_start=0.5, fusion_end=0.5),
        "sizes": message([world.poses[0], Pose(96, 128, world.poses[1].people)]),
        "skipped": [len(skipped), len(held), difference(held[0], held[1])],
        "size": list(sized.shape),
    }

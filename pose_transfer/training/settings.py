# SPDX-License-Identifier: GPL-3.0-or-later
"""How the demo models are trained: one table for a GPU, one for a CPU, one for the tests."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class StageSettings:
    """One optimisation run: `steps` of `batch` samples under AdamW."""

    steps: int
    batch: int
    learning_rate: float
    warm_up: int = 200
    constant_until: float = 0.3
    """Share of the steps after which the rate falls along a cosine."""
    weight_decay: float = 1e-2
    ema_decay: float = 0.998
    clip: float = 1.0


@dataclass(frozen=True)
class DemoSettings:
    """Everything that decides the demo weights besides the code."""

    identities: int
    poses_per_identity: int
    early_samples: int
    """Rendered samples after which autoencoder and towers may start."""
    autoencoder: StageSettings
    source_tower: StageSettings
    image_tower: StageSettings
    pose_tower: StageSettings
    places: StageSettings
    fusion: StageSettings
    first_block: StageSettings
    diffusion: StageSettings
    decoder: StageSettings
    judge_steps: int
    judge_batch: int
    person: StageSettings
    face: StageSettings
    vcm: StageSettings
    predictions: int = 32000
    """Latents that the second stage predicts for the decoder to learn from."""
    latent_samples: int | None = None
    """Samples that the second stage uses, from the first on; all where None."""
    text_share: float = 0.15
    """Share of the diffusion steps that are text to image."""
    drop_all: float = 0.1
    drop_source: float = 0.05
    """Share of samples that keep the pose only."""
    drop_fusion: float = 0.2
    foreground_weight: float = 2.0
    face_weight: float = 4.0
    """Added to the foreground's weight where the face is: it is small and looked at first."""
    attention_weight: float = 0.3
    """Weight of the true correspondence in the diffusion stage's loss."""
    ablation_from: float = 0.85
    """Share of the diffusion steps after which the ablation's variants go their own ways."""
    targets_per_source: int = 2
    mixed_precision: str = "bf16"
    compile_blocks: bool = False
    seed: int = 0


GPU = DemoSettings(
    identities=16000,
    poses_per_identity=8,
    early_samples=20000,
    autoencoder=StageSettings(4500, 128, 6e-4, clip=0.5),
    source_tower=StageSettings(3500, 256, 8e-4),
    image_tower=StageSettings(2500, 384, 8e-4),
    pose_tower=StageSettings(3000, 256, 8e-4),
    places=StageSettings(3000, 128, 2e-3),
    fusion=StageSettings(1500, 768, 3e-4, weight_decay=1e-4),
    first_block=StageSettings(3000, 128, 1e-3),
    diffusion=StageSettings(9000, 384, 8e-4, ema_decay=0.9993),
    decoder=StageSettings(2500, 128, 8e-4, clip=0.5),
    judge_steps=2500,
    judge_batch=128,
    person=StageSettings(6000, 64, 2e-3),
    face=StageSettings(4000, 256, 2e-3),
    vcm=StageSettings(5000, 256, 1e-3),
    compile_blocks=True,
)

CPU = replace(
    GPU,
    identities=2000,
    early_samples=4000,
    autoencoder=StageSettings(
        600, 6, 1e-3, warm_up=30, constant_until=0.4, ema_decay=0.99, clip=0.5
    ),
    source_tower=StageSettings(3400, 12, 1e-3, warm_up=50, ema_decay=0.99),
    image_tower=StageSettings(700, 32, 1e-3, warm_up=50, ema_decay=0.99),
    pose_tower=StageSettings(2600, 12, 1.2e-3, warm_up=50, ema_decay=0.99),
    places=StageSettings(2500, 16, 2e-3, warm_up=50, constant_until=0.4, ema_decay=0.99),
    fusion=StageSettings(350, 64, 6e-4, warm_up=30, ema_decay=0.99, weight_decay=1e-4),
    first_block=StageSettings(500, 12, 1.2e-3, warm_up=50, ema_decay=0.99),
    diffusion=StageSettings(6000, 16, 9e-4, warm_up=40, ema_decay=0.993),
    decoder=StageSettings(10000, 12, 8e-4, warm_up=40, ema_decay=0.995, clip=0.5),
    predictions=6000,
    latent_samples=10000,
    text_share=0.2,
    mixed_precision="no",
    judge_steps=700,
    judge_batch=16,
    person=StageSettings(8000, 8, 2e-3, warm_up=60, constant_until=0.6, ema_decay=0.995),
    face=StageSettings(3200, 48, 2e-3, warm_up=60, ema_decay=0.995),
    vcm=StageSettings(3000, 12, 1e-3, warm_up=40, ema_decay=0.99),
    compile_blocks=False,
)

SMOKE = replace(
    CPU,
    identities=6,
    poses_per_identity=3,
    early_samples=8,
    autoencoder=StageSettings(3, 2, 6e-4, warm_up=1),
    source_tower=StageSettings(3, 2, 6e-4, warm_up=1),
    image_tower=StageSettings(3, 2, 6e-4, warm_up=1),
    pose_tower=StageSettings(3, 2, 6e-4, warm_up=1),
    places=StageSettings(3, 2, 6e-4, warm_up=1),
    fusion=StageSettings(3, 4, 2e-4, warm_up=1),
    first_block=StageSettings(3, 2, 6e-4, warm_up=1),
    diffusion=StageSettings(4, 4, 6e-4, warm_up=1),
    decoder=StageSettings(2, 2, 3e-4, warm_up=1),
    predictions=4,
    latent_samples=None,
    text_share=0.5,
    judge_steps=2,
    judge_batch=4,
    person=StageSettings(2, 3, 1e-3, warm_up=1),
    face=StageSettings(2, 4, 1e-3, warm_up=1),
    vcm=StageSettings(2, 2, 1e-3, warm_up=1),
)

PRESETS = {"gpu": GPU, "cpu": CPU, "smoke": SMOKE}

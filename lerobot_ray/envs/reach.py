"""Reach: a planar arm with two joints touches a coloured target. Small, deterministic by seed, rendered with numpy.

The observation names the joints but not the target: that is in the picture alone, so a policy that succeeds has learnt
to look. Actions are joint angles to move towards, as on most real arms; the arm follows with a bounded speed.
`expert_action` solves every episode and serves as the demonstrator.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np

LINK_LENGTHS = (0.65, 0.5)
BASE_XY = (0.0, -0.55)
VIEW = 1.0
"""The camera sees x and y from -VIEW to VIEW."""
MAX_SPEED = 0.1
"""Radians a joint moves at most per step."""
SUCCESS_DISTANCE = 0.07
HOLD_STEPS = 3
"""Consecutive steps the tip must stay on the target."""
JOINT_RANGE = ((0.15, np.pi - 0.15), (-2.4, 2.4))
TARGET_RADIUS = 0.09

_BACKGROUND = np.array([236, 233, 226], dtype=np.float64)
_TABLE = np.array([206, 199, 186], dtype=np.float64)
_LINK = np.array([[58, 76, 99], [84, 108, 138]], dtype=np.float64)
_JOINT = np.array([32, 38, 48], dtype=np.float64)
_TIP = np.array([240, 180, 41], dtype=np.float64)
_TARGET = np.array([209, 67, 52], dtype=np.float64)


@dataclass
class ReachState:
    """All there is to know about one moment of an episode."""

    joints: np.ndarray
    target_xy: np.ndarray
    held_steps: int = 0


class ReachEnv(gymnasium.Env):
    """Observation: `agent_pos` float32 (2,) joint angles, `pixels` uint8 (H, W, 3). Action: float32 (2,) joint angles.

    With `obs_type="environment_state_agent_pos"` it holds `environment_state`, the target's x and y as float32 (2,), in
    place of `pixels`. Reward is minus the distance of the tip to the target; `info["is_success"]` turns true, and the
    episode ends, when the tip has stayed on the target for `HOLD_STEPS` steps.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 (gymnasium reads a plain dict)

    task_description = "touch the red disc"

    def __init__(
        self,
        *,
        image_hw: tuple[int, int] = (96, 96),
        max_episode_steps: int = 60,
        obs_type: str = "pixels_agent_pos",
    ) -> None:
        self._has_camera = obs_type == "pixels_agent_pos"
        self.image_hw, self.max_episode_steps, self.render_mode = image_hw, max_episode_steps, "rgb_array"
        low, high = (np.array([limit[side] for limit in JOINT_RANGE], dtype=np.float32) for side in (0, 1))
        self._low, self._high = low, high
        self.action_space = gymnasium.spaces.Box(low, high, dtype=np.float32)
        seen: dict[str, gymnasium.Space] = {"agent_pos": gymnasium.spaces.Box(low, high, dtype=np.float32)}
        if self._has_camera:
            seen["pixels"] = gymnasium.spaces.Box(0, 255, (*image_hw, 3), dtype=np.uint8)
        else:
            seen["environment_state"] = gymnasium.spaces.Box(-VIEW, VIEW, (2,), dtype=np.float32)
        self.observation_space = gymnasium.spaces.Dict(seen)
        self._canvas = _Canvas(image_hw)
        self._steps = 0
        self.state = ReachState(np.array([np.pi / 2, 0.0]), np.zeros(2))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict, dict]:
        super().reset(seed=seed)
        start = np.array([self.np_random.uniform(*limit) for limit in JOINT_RANGE])
        while True:
            # a random pose's tip is within reach by construction; elbow kept bent, so that small moves stay small
            pose = np.array([self.np_random.uniform(*limit) for limit in JOINT_RANGE])
            target_xy = tip_xy(pose)
            is_reachable = abs(pose[1]) > 0.35 and target_xy[1] > -0.35 and np.abs(target_xy).max() < VIEW - 0.1
            if is_reachable and np.linalg.norm(target_xy - tip_xy(start)) > 4 * SUCCESS_DISTANCE:
                break
        self.state, self._steps = ReachState(start, target_xy), 0
        return self._observation(), {"is_success": False}

    def step(self, action: np.ndarray) -> tuple[dict, float, bool, bool, dict]:
        wanted = np.clip(np.asarray(action, dtype=np.float64), self._low, self._high)
        self.state.joints = self.state.joints + np.clip(wanted - self.state.joints, -MAX_SPEED, MAX_SPEED)
        distance = float(np.linalg.norm(tip_xy(self.state.joints) - self.state.target_xy))
        self.state.held_steps = self.state.held_steps + 1 if distance < SUCCESS_DISTANCE else 0
        self._steps += 1
        is_success = self.state.held_steps >= HOLD_STEPS
        truncated = self._steps >= self.max_episode_steps and not is_success
        return self._observation(), -distance, is_success, truncated, {"is_success": is_success}

    def render(self) -> np.ndarray:
        return self._canvas.draw(self.state)

    def _observation(self) -> dict[str, np.ndarray]:
        joints = self.state.joints.astype(np.float32)
        if self._has_camera:
            return {"agent_pos": joints, "pixels": self.render()}
        return {"agent_pos": joints, "environment_state": self.state.target_xy.astype(np.float32)}


def tip_xy(joints: np.ndarray) -> np.ndarray:
    """Where the tip of the arm is, for joint angles in radians: the first from the x axis, the second from link one."""
    return _elbow_xy(joints) + LINK_LENGTHS[1] * _direction(joints[0] + joints[1])


def expert_action(state: ReachState) -> np.ndarray:
    """The joint angles that put the tip on the target, the elbow bent the nearer way; the arm's speed limit applies."""
    offset = state.target_xy - np.array(BASE_XY)
    upper, fore = LINK_LENGTHS
    cosine = (offset @ offset - upper**2 - fore**2) / (2 * upper * fore)
    bend = np.arccos(np.clip(cosine, -1.0, 1.0))
    poses = []
    for elbow in (bend, -bend):
        shoulder = np.arctan2(offset[1], offset[0]) - np.arctan2(fore * np.sin(elbow), upper + fore * np.cos(elbow))
        poses.append(np.array([(shoulder + np.pi / 2) % (2 * np.pi) - np.pi / 2, elbow]))
    within = [pose for pose in poses if all(lo <= x <= hi for x, (lo, hi) in zip(pose, JOINT_RANGE, strict=True))]
    goal = min(within or poses, key=lambda pose: float(np.abs(pose - state.joints).max()))
    # a step towards the goal, not the goal itself: what a teleoperator records, and bounded for the policy to learn
    return (state.joints + np.clip(goal - state.joints, -MAX_SPEED, MAX_SPEED)).astype(np.float32)


def _direction(angle: float) -> np.ndarray:
    return np.array([np.cos(angle), np.sin(angle)])


def _elbow_xy(joints: np.ndarray) -> np.ndarray:
    return np.array(BASE_XY) + LINK_LENGTHS[0] * _direction(joints[0])


class _Canvas:
    """Draws shapes with soft edges from their distance to each pixel's centre."""

    def __init__(self, image_hw: tuple[int, int]) -> None:
        height, width = image_hw
        y, x = np.mgrid[0:height, 0:width]
        self._xy = np.stack([(x + 0.5) / width * 2 - 1, 1 - (y + 0.5) / height * 2], axis=-1) * VIEW
        self._edge = 2 * VIEW / min(height, width)
        table = np.where(self._xy[..., 1:] < BASE_XY[1], _TABLE, _BACKGROUND)
        self._backdrop = self._over(table, np.abs(self._xy[..., 1] - BASE_XY[1]) - 0.01, _TABLE * 0.8)

    def draw(self, state: ReachState) -> np.ndarray:
        base, elbow, tip = np.array(BASE_XY), _elbow_xy(state.joints), tip_xy(state.joints)
        image = self._over(self._backdrop, self._to_point(state.target_xy) - TARGET_RADIUS, _TARGET)
        image = self._over(image, self._to_segment(base, elbow) - 0.07, _LINK[0])
        image = self._over(image, self._to_segment(elbow, tip) - 0.055, _LINK[1])
        for point, radius, colour in ((base, 0.06, _JOINT), (elbow, 0.04, _JOINT), (tip, 0.04, _TIP)):
            image = self._over(image, self._to_point(point) - radius, colour)
        return np.rint(image).astype(np.uint8)

    def _to_point(self, point: np.ndarray) -> np.ndarray:
        return np.linalg.norm(self._xy - point, axis=-1)

    def _to_segment(self, start: np.ndarray, end: np.ndarray) -> np.ndarray:
        along = end - start
        share = np.clip((self._xy - start) @ along / (along @ along), 0.0, 1.0)
        return np.linalg.norm(self._xy - start - share[..., None] * along, axis=-1)

    def _over(self, image: np.ndarray, distance: np.ndarray, colour: np.ndarray) -> np.ndarray:
        cover = np.clip(0.5 - distance / self._edge, 0.0, 1.0)[..., None]
        return image * (1 - cover) + colour * cover

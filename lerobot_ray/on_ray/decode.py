"""What runs in a decode actor: a block number in, a framed block out."""

from __future__ import annotations

import logging
import mmap
from typing import TYPE_CHECKING, Any

import numpy as np

from lerobot_ray.core.errors import FrameError
from lerobot_ray.core.types import ACTION, SAMPLE_WEIGHT, STREAM_INDEX, VALID_ACTIONS
from lerobot_ray.data.bad_episodes import SkippingOrder
from lerobot_ray.data.plan import BlockPlan, StreamPlan
from lerobot_ray.data.storage import LocalStorage
from lerobot_ray.data.valid_actions import valid_actions_of_steps
from lerobot_ray.data.window_ahead import samples_ahead
from lerobot_ray.on_ray.framing import NUMBER, Landed, frame_block, has_landed
from lerobot_ray.on_ray.landing import Landing, LandingAddress
from lerobot_ray.on_ray.placement import this_node
from lerobot_ray.on_ray.token import adopt_token

if TYPE_CHECKING:
    import pyarrow as pa

    from lerobot_ray.data.sample import SampleSpec

logger = logging.getLogger(__name__)

BLOCKS_AHEAD = 4
"""How many blocks before their turn the files of a far dataset are asked for."""
SAMPLE_ID_COLUMN = "sample_id"
UNREADABLE_COLUMN = "unreadable_episodes"


class DecodeBlocks:
    """The Ray Data function: holds one process's open containers and tables, turns a block number into a block."""

    def __init__(
        self, spec: SampleSpec, plan: StreamPlan, token_holder: Any = None, landing: LandingAddress | None = None
    ) -> None:
        if token_holder is not None:
            adopt_token(token_holder)
        self.landing = None if landing is None else Landing.reached(landing, node_id=this_node())
        from lerobot_ray.data.sample import BlockReader

        self.spec, self.plan = spec, plan
        self.reader = BlockReader(spec)
        self.fetches = not isinstance(spec.metadata.storage, LocalStorage)

    def __call__(self, numbers: pa.Table) -> pa.Table:
        return self.decode(int(numbers.column(NUMBER)[0].as_py()))

    def decode(self, number: int) -> pa.Table:
        """Block `number`, framed for transport; on the way, a slice of what later blocks will need."""
        if self.fetches:  # what this actor is likely to be handed after what it holds already
            self.reader.prefetch(self.plan.block(number + BLOCKS_AHEAD).sample_ids.ravel())
        ahead = samples_ahead(self.plan, number)
        if ahead.size:
            self.reader.read_ahead(ahead)
        place = None if self.landing is None else self.landing.take()
        if self.landing is None or place is None:
            return frame_block(number, self._columns(number, None))
        memory = self.landing.memory(place)
        try:
            table = frame_block(number, self._columns(number, memory), Landed(place, memory))
        except BaseException:
            self.landing.give_back(place)
            raise
        if has_landed(table):
            self.landing.hand_over(place, number)
        else:
            self.landing.give_back(place)
        return table

    def _columns(self, number: int, memory: mmap.mmap | None) -> dict[str, Any]:
        """What block `number` holds; camera frames in `memory`, as far as they can be decoded into it."""
        block = self.plan.block(number)
        columns, unreadable = self._read(block, memory)
        if ACTION in self.spec.offsets:
            per_micro_batch = valid_actions_of_steps(
                self.plan, self.spec.selection, self.spec.offsets[ACTION], block.step
            )
            columns[VALID_ACTIONS] = np.repeat(per_micro_batch, self.plan.micro_batch)
        if self.spec.weights is not None:
            columns[SAMPLE_WEIGHT] = self.spec.weights.of(
                columns[SAMPLE_ID_COLUMN].reshape(-1, self.plan.micro_batch),
                block.step,
                plan=self.plan,
                selection=self.spec.selection,
            ).ravel()
        columns[UNREADABLE_COLUMN] = np.array(unreadable, dtype=np.int64)
        return columns

    def _read(self, block: BlockPlan, memory: mmap.mmap | None) -> tuple[dict[str, Any], list[int]]:
        """The block's columns, and the episodes that had to be replaced because they cannot be read."""
        unreadable: list[int] = []
        stream_indices, sample_ids = block.stream_indices.ravel(), block.sample_ids.ravel()
        while True:
            try:
                with self.reader.lent(memory):
                    columns = self.reader.read(sample_ids)
            except FrameError as error:
                order = self.plan.order
                if not isinstance(order, SkippingOrder) or error.episode is None or error.episode in unreadable:
                    raise
                logger.warning("%s Its episode is replaced in block %d.", error, block.number)
                unreadable.append(error.episode)
                sample_ids = order.replacements(stream_indices, unreadable)
            else:
                columns[STREAM_INDEX] = stream_indices
                columns[SAMPLE_ID_COLUMN] = sample_ids
                return columns, unreadable

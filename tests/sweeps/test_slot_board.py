"""Orders of a slot: handed out until they are done, given up when their workers die again and again."""

from __future__ import annotations

from lerobot_ray.core.errors import LerobotRayError
from lerobot_ray.sweeps.slot_board import CLOSE, SlotBoard


def test_an_order_is_handed_out_again_until_it_is_done():
    board = SlotBoard()
    assert board.next_order() is None
    board.assign(1, ["setup"], 3)
    assert [board.next_order(), board.next_order()] == [1, 1], "the workers died in between"
    assert board.order() == ["setup"]
    board.done(1, 12)
    board.done(1, 12)  # said twice, as after a restart
    assert board.take() == [("done", (1, 12, ""))]
    assert board.next_order() is None
    board.close()
    assert board.next_order() == CLOSE


def test_lost_too_often_is_failed():
    board = SlotBoard()
    board.assign(1, ["setup"], 1)
    assert [board.next_order(), board.next_order()] == [1, 1]
    assert board.fatal() is None
    board.crashed("RuntimeError: connection closed")
    assert board.next_order() == 1, "a run that is over says so itself"
    assert str(board.fatal()) == "its workers were lost 2 times. RuntimeError: connection closed"
    board.done(1, None)
    assert board.take() == [("done", (1, None, str(board.fatal())))]


def test_the_next_trial_begins_clean():
    board = SlotBoard()
    board.assign(1, ["one"], 0)
    board.next_order()
    board.fail(LerobotRayError("the loss is not finite"))
    board.request_stop("asha")
    board.done(1, 3)
    board.assign(2, ["two"], 0)
    assert (board.next_order(), board.fatal(), board.stop_requested()) == (2, None, "")


def test_no_limit():
    board = SlotBoard()
    board.assign(1, ["setup"], -1)
    assert {board.next_order() for _ in range(50)} == {1}
    assert board.fatal() is None


def test_results_of_rollouts_are_for_the_trial_they_are_of():
    board = SlotBoard()
    board.assign(1, ["setup"], 1)
    board.deliver("late")
    board.assign(2, ["setup"], 1)
    assert board.delivered() == []

"""A pipeline draws the masks of the model without one: one step a batch, its rows for each microbatch (G11)."""

from .launch import Report, result


def test_two_stages_under_gpipe_and_1f1b_equal_the_whole_model(reports: dict[int, Report]) -> None:
    """Outputs bit for bit, gradients, and the clock, with two and with four microbatches."""
    found = result(reports[2], "two_stages")
    assert found[0] == found[1]
    assert len(set(found[0])) == 3


def test_interleaved_stages_of_one_bound_model_count_once(reports: dict[int, Report]) -> None:
    assert result(reports[2], "interleaved") == [2, 2]


def test_pipelines_that_share_a_batch_have_their_rows_of_it(reports: dict[int, Report]) -> None:
    assert result(reports[4], "replicated") == [True] * 4


def test_what_is_said_of_pipelines_that_are_not_told(reports: dict[int, Report]) -> None:
    for said, again, unbound, other in result(reports[2], "pipeline_mistakes"):
        assert "in a pipeline call dropkit.torch.pipelined(schedule)" in said
        assert again == "this ScheduleGPipe is pipelined already"
        assert "is not bound, and would draw for each microbatch anew: call dropkit.torch.bind" in unbound
        assert "pipelined needs a schedule of torch.distributed.pipelining such as ScheduleGPipe, got Linear" in other

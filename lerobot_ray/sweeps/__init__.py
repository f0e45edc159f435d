"""Many trainings in place of a guess. Ray Tune's searchers choose, its schedulers stop; placing trials is done here.

Reading order: `sweep_file` and `space` (what a person writes), `flags` and `fit` (what it means for the training
flags), `plan` (all that is settled before the first trial), `searchers`, `stoppers`, `population` and `takeover` (who
chooses, who ends, who continues whom), `journal` and `trial` (what happened, and what it adds up to), `queue` (which
trial next), `room`, `slot`, `slot_board` and `slot_worker` (where trials run), `trial_run` (a trial as a training run),
`run` and `driver`, then what is left at the end: `table`, `best`, `push_best`, `use`, `importance`, `charts`, `page`,
`conclude`. `parent_run` is the sweep in MLflow.
"""

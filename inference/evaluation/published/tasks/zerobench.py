"""What moss_zerobench_subquestions.yaml names; loaded by lmms-eval alone, whose functions for the main questions fit."""

from lmms_eval.tasks.zerobench.utils import zerobench_aggregate_results as zerobench_aggregate_results
from lmms_eval.tasks.zerobench.utils import zerobench_doc_to_text as zerobench_doc_to_text
from lmms_eval.tasks.zerobench.utils import zerobench_doc_to_visual as zerobench_doc_to_visual
from lmms_eval.tasks.zerobench.utils import zerobench_process_results as zerobench_process_results

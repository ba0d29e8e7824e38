"""Options become manifests, manifests a plan, the plan is applied and verified."""

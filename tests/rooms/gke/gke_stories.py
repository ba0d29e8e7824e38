"""Wishes of two clusters, and what is planned and done for them."""

from isthmus.gke import applying, planning, plans, reading, wishes

HELLO = {
    title: plans.Served(((5000, 5000),), ((5000, "sample/helloworld"),))
    for title in ("cluster-1", "cluster-2", "cluster-3")
}


def asked(*places, **more):
    return wishes.wishes_of(
        {
            "clusters": [
                {"name": name, "project": project, "location": location}
                for name, project, location in places
            ],
            **more,
        }
    )


TWO = asked(("cluster-1", "project-1", "us-central1"), ("cluster-2", "project-1", "europe-west1"))
SHARED = asked(("cluster-1", "project-1", "us-central1"), ("cluster-2", "project-2", "us-central1"))


def planned(door, who=TWO, **more):
    return planning.plan(who, reading.world(door, who), HELLO, **more)


def titles(plan):
    return [step.title for step in plan.steps]


def codes(plan):
    return [check.finding.code for check in plan.checks]


def stops(plan):
    return [check.finding.code for check in plan.checks if check.stops]


def carry_out(door, plan):
    told = []
    applying.apply(door, plan, tell=told.append)
    return told

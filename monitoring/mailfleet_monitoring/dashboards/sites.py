"""One receiving site, or all of them: what they take, put off and refuse."""

from __future__ import annotations

from mailfleet_monitoring.panels import (
    BAD,
    GOOD,
    PER_SECOND,
    RATIO,
    SHORT,
    WATCH,
    Dashboard,
    N,
    Row,
    Step,
    Variable,
    chart,
    rate,
    table,
    total,
)

HERE = "$site"


def _share(verdict: str) -> str:
    return (
        f"{rate('mailfleet_site_recipients_total', 'site', verdict=verdict, site=HERE)} / "
        f"{rate('mailfleet_site_recipients_total', 'site', site=HERE)}"
    )


SITES = Dashboard(
    "sites",
    "Sites",
    "What receiving sites take, put off and refuse. Sites that were busy first have lines of their own, the rest is (others).",
    (
        Row(
            "Pace",
            (
                chart(
                    "Delivered",
                    {"{{site}}": rate("mailfleet_site_recipients_total", "site", verdict="delivered", site=HERE)},
                    PER_SECOND,
                    "Recipients.",
                    width=12,
                ),
                chart(
                    "What attempts came to",
                    {"{{verdict}}": rate("mailfleet_site_recipients_total", "verdict", site=HERE)},
                    PER_SECOND,
                    "Recipients at the chosen sites.",
                    width=12,
                    stacked=True,
                ),
                chart(
                    "Put off",
                    {"{{site}}": _share("deferred")},
                    RATIO,
                    "Of all attempts: MailfleetSiteDefers at a half.",
                    width=12,
                    steps=(Step(0, GOOD), Step(0.5, BAD)),
                ),
                chart(
                    "Refused",
                    {"{{site}}": _share("bounced")},
                    RATIO,
                    "Of all attempts.",
                    width=12,
                    steps=(Step(0, GOOD), Step(0.1, BAD)),
                ),
            ),
        ),
        Row(
            "Queues",
            (
                chart(
                    "Units by state",
                    {"{{state}}": total("mailfleet_site_units", "state", site=HERE)},
                    SHORT,
                    "Of the 20 sites with most: ready, in senders' hands, waiting for a retry time or a suspension.",
                    stacked=True,
                ),
                chart(
                    "Units",
                    {"{{site}}": total("mailfleet_site_units", "site", site=HERE)},
                    SHORT,
                    "Of the 20 sites with most.",
                ),
                chart(
                    "Fairness",
                    {"{{site}}": f'min by (site) (mailfleet_site_fairness{{{N}, site=~"{HERE}"}})'},
                    RATIO,
                    "1: tenants with mail ready are served by weight; 1/n: one of n gets everything. Busy sites only.",
                ),
            ),
        ),
        Row(
            "Standing",
            (
                table(
                    "Reputation",
                    f'min by (source, site) (mailfleet_reputation_score{{{N}, site=~"{HERE}"}})',
                    ("source", "site"),
                    SHORT,
                    "How a site sees a source, 0 to 100. Below 40: quarantine.",
                    width=12,
                    decimals=0,
                    steps=(Step(0, BAD), Step(40, WATCH), Step(80, GOOD)),
                ),
                table(
                    "Held now",
                    f'max by (source, site, state) (mailfleet_troubles{{{N}, site=~"{HERE}"}})',
                    ("source", "site", "state"),
                    SHORT,
                    "What back-off and reputation hold; `mailfleet site NAME` says why.",
                    width=12,
                    bare=True,
                ),
            ),
        ),
    ),
    (Variable("site", "mailfleet_site_recipients_total", "site", "Site"),),
)

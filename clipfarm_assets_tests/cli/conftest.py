import pytest

from clipfarm_assets.cli.app import run
from clipfarm_assets_tests.cli.kit import all_of_it, as_deployed, record_models
from clipfarm_assets_tests.pipelines.conftest import open_world, world  # noqa: F401 - fixtures
from clipfarm_assets_tests.pipelines.inspect.kit import Template
from clipfarm_assets_tests.pipelines.kit import DAY_1, DAY_2, Clip, clips


@pytest.fixture
def deployed(world, monkeypatch):  # noqa: F811 - it is the fixture
    """A deployment without clips that this process's environment names."""
    record_models(world)
    return as_deployed(world, monkeypatch.setenv, monkeypatch.delenv)


def two_dates(made):
    first = [*clips(4), Clip("-odd_id", audio=None)]
    made.fill(first)
    all_of_it(made, DAY_1)
    made.fill([*first, *clips(2, DAY_2, "new")])


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    return Template(tmp_path_factory.mktemp("ran"), two_dates)


@pytest.fixture
def ran(template, monkeypatch):
    """A deployment of two dates: four clips done, one waits for its sound, two not taken up yet."""
    with template.opened() as opened:
        yield as_deployed(opened, monkeypatch.setenv, monkeypatch.delenv)


@pytest.fixture
def clipfarm(capsys):
    """Carries out a command line: its exit status, what it printed, and its error."""

    def carry_out(*arguments):
        capsys.readouterr()
        code = run(list(arguments))
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return carry_out

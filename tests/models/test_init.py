import subprocess
import sys

import pytest

from trustnlp import models


def test_every_public_name_is_there():
    assert all(callable(getattr(models, name)) for name in models.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = models.nonsense


def test_training_from_scratch_does_not_import_transformers():
    code = (
        "import sys; from trustnlp import models; models.build; models.fit; models.predict; models.load;"
        "sys.exit('transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0

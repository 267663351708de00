"""Our server together with software we did not write."""

import pytest

pytest.register_assert_rewrite("tests.interop.stories")

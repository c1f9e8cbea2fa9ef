"""What clients of MLflow's scoring server send to POST /invocations.

Source, as of MLflow 3: "Deploy MLflow Model as a Local Inference Server": one of dataframe_split,
dataframe_records, inputs and instances, and params -> {"predictions": [...]}.
"""

from service.formats import mlflow as bodies
from service.formats.registry import Format
from service.http.platforms.accepted import accepted_alone
from service.http.rest.dialect import Dialect
from service.http.rest.predict import Rows

_JSON = Format("mlflow", (), bodies.read)

mlflow = Rows(Dialect(bodies.FIELDS, reply=accepted_alone, json=_JSON))

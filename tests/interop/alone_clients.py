"""Use KServe's client and MLServer's codecs; test_alone.py runs this in a separate process.

    python alone_clients.py FOLDER ADDRESS NAME IMAGE...

Only these modules are imported: the packages' `__init__` would import their whole servers.
"""

import asyncio
import importlib.util
import json
import sys
import types

import httpx
import numpy as np


def import_bare(name):
    """Import a package without running its `__init__`."""
    package = types.ModuleType(name)
    package.__path__ = list(importlib.util.find_spec(name).submodule_search_locations)
    sys.modules[name] = package


def ask_as_mlserver(address, name, images):
    """Return the labels and probabilities for each codec that can hold images."""
    import base64

    from mlserver.codecs import Base64Codec, NumpyCodec, StringCodec
    from mlserver.types import InferenceRequest, InferenceResponse

    texts = [base64.b64encode(image).decode() for image in images]
    inputs = {
        "base64": Base64Codec.encode_input("images", images, use_bytes=False),
        "str": StringCodec.encode_input("images", texts, use_bytes=False),
    }
    answers = {}
    for kind, tensor in inputs.items():
        request = InferenceRequest(id=kind, inputs=[tensor])
        response = httpx.post(
            f"{address}/v2/models/{name}/infer", content=request.model_dump_json(exclude_none=True)
        )
        label, probabilities = InferenceResponse.model_validate(response.json()).outputs
        answers[kind] = {
            "shape": tensor.shape,
            "labels": StringCodec.decode_output(label),
            "shares": NumpyCodec.decode_output(probabilities).tolist(),
        }
    return answers


async def ask_as_kserve(address, name, images):
    """Return KServe's view of the answers."""
    from kserve.inference_client import InferenceRESTClient, RESTConfig
    from kserve.protocol.infer_type import InferInput, InferRequest, RequestedOutput

    answers = {}
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
        for binary in (False, True):
            tensor = InferInput("images", [len(images)], "BYTES")
            tensor.set_data_from_numpy(np.array(images, dtype=object))
            outputs = [
                RequestedOutput(output, parameters={"binary_data": binary})
                for output in ("label", "probabilities")
            ]
            request = InferRequest(name, [tensor], request_outputs=outputs)
            response = await client.infer(address, request, model_name=name)
            labels, shares = (output.as_numpy() for output in response.outputs)
            answers[f"binary output {binary}"] = {
                "labels": [one if isinstance(one, str) else one.decode() for one in labels],
                "shares": shares.tolist(),
            }
        answers["ready"] = [
            await client.is_server_live(address),
            await client.is_server_ready(address),
            await client.is_model_ready(address, name),
            await client.is_model_ready(address, "another"),
        ]
    return answers


def main(folder, address, name, *paths):
    sys.path.append(folder)
    images = []
    for path in paths:
        with open(path, "rb") as file:
            images.append(file.read())
    for package in ("mlserver", "kserve"):
        import_bare(package)
    answers = {"mlserver": ask_as_mlserver(address, name, images)}
    answers["kserve"] = asyncio.run(ask_as_kserve(address, name, images))
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])

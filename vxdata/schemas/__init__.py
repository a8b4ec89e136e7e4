"""Payload, resource and response models, identifiers, and the registry of types. Pure: no I/O."""

from vxdata.schemas.payload import Payload
from vxdata.schemas.registry import register
from vxdata.schemas.resource import Resource
from vxdata.schemas.response import ResourceResponse

__all__ = ["Payload", "Resource", "ResourceResponse", "register"]

"""The command line of VxData: `vxdata`, thin over the SDK."""

"""Create an S3 bucket if it does not exist: create_bucket.py NAME ENDPOINT."""

import sys

import boto3

name, endpoint = sys.argv[1:]
s3 = boto3.client("s3", endpoint_url=endpoint)
if name not in [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]:
    s3.create_bucket(Bucket=name)

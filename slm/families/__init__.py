# SPDX-License-Identifier: Apache-2.0
"""What slm knows by name: model families, pre-tokenizers, downloads. Nowhere else is a model's name written.

registry.py lists the families. Each is imported with the first model of it, not with slm.
"""

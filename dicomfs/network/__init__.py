"""The DICOM network, on pynetdicom; nothing here knows archives or disks."""

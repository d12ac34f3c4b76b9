"""Makes the dictionary of header blocks: elements as scanners, archives and de-identifiers write them.

    python tools/make_dictionary.py OUTPUT

Made of the standard's own tables (PS3.6 through pydicom, PS3.16 codes), of attribute values that the
standard defines or that name a product, and of names of private attributes.  Nothing in it comes from a
file or belongs to a person.  A dictionary that shipped never changes: what is made here anew gets the next
number.
"""

from __future__ import annotations

import argparse
import struct
from pathlib import Path

from pydicom._private_dict import private_dictionaries
from pydicom.datadict import dictionary_VR, tag_for_keyword

LONG = {"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"}
SIZES = {"US": 2, "SS": 2, "UL": 4, "SL": 4, "FL": 4, "FD": 8, "AT": 4, "OB": 2, "OW": 2, "SQ": 0, "UN": 4}
STRUCTS = {"US": "<H", "SS": "<h", "UL": "<L", "SL": "<l", "FL": "<f", "FD": "<d"}
STORAGE = "1.2.840.10008.5.1.4.1.1."

META = (
    "FileMetaInformationVersion=\\x MediaStorageSOPClassUID={c} MediaStorageSOPInstanceUID={u} "
    "TransferSyntaxUID={t} ImplementationClassUID={i} ImplementationVersionName={v} "
    "SourceApplicationEntityTitle=DICOM"
)
WRITERS = (
    ("1.2.276.0.7230010.3.0.3.6.4", "OFFIS_DCMTK_364"),
    ("1.2.276.0.7230010.3.0.3.6.7", "OFFIS_DCMTK_367"),
    ("1.2.826.0.1.3680043.8.498.1", "PYDICOM 2.4.4"),
    ("1.2.826.0.1.3680043.2.1143.107.104.103.115.2.8.4.108", "GDCM 2.8.4"),
    ("1.2.40.0.13.1.3", "dcm4che-5.29.0"),
    ("1.2.40.0.13.1.1", "dcm4che-2.0"),
    ("1.3.12.2.1107.5.2", "MR_VE11C"),
    ("1.2.840.113619.6.336", "1_2_5"),
    ("1.3.46.670589.11.0.0.51.4.11.0", "Philips MR 11.0"),
    ("1.2.40.0.13.1.1.1", "dcm4che-1.4.35"),
)
SYNTAXES = ("1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2", "1.2.840.10008.1.2.1")
ROOTS = (
    "1.2.276.0.7230010.3.1.4.",
    "1.2.392.200036.9116.2.",
    "1.2.392.200036.9125.",
    "1.2.826.0.1.3680043.8.498.",
    "1.2.826.0.1.3680043.2.1143.",
    "1.3.46.670589.11.",
    "1.3.46.670589.33.1.",
    "1.2.840.113704.1.111.",
    "1.2.840.113619.2.55.3.",
    "1.2.840.113619.2.408.",
    "1.3.12.2.1107.5.1.4.",
    "1.3.12.2.1107.5.2.43.",
    "1.3.6.1.4.1.9328.50.",
    "1.3.6.1.4.1.14519.5.2.1.",
)
PATIENT = (
    "StudyDate=20200101 SeriesDate=20200101 AcquisitionDate=20200101 ContentDate=20200101 "
    "StudyTime=100000.000000 SeriesTime=100000.000000 AcquisitionTime=100000.000000 "
    "ContentTime=100000.000000 AccessionNumber="
)
PERSON = (
    "ReferringPhysicianName= PatientName= PatientID= PatientBirthDate= PatientSex=M PatientAge=060Y "
    "PatientSize=0 PatientWeight=70 EthnicGroup= AdditionalPatientHistory= "
)
PLACE = (
    "InstitutionName= InstitutionAddress= StationName= StudyDescription= SeriesDescription= "
    "InstitutionalDepartmentName= PerformingPhysicianName= OperatorsName= "
)
DEIDENTIFIED = (
    "PatientIdentityRemoved=YES "
    "DeidentificationMethod=Per_DICOM_PS_3.15_AnnexE._Details_in_0012,0064 "
    "ClinicalTrialTimePointID=0 ClinicalTrialTimePointDescription=Days_offset_from_diagnosis "
)
CODES = (
    ("113100", "Basic Application Confidentiality Profile"),
    ("113101", "Clean Pixel Data Option"),
    ("113103", "Clean Graphics Option"),
    ("113104", "Clean Structured Content Option"),
    ("113105", "Clean Descriptors Option"),
    ("113106", "Retain Longitudinal Temporal Information Full Dates Option"),
    ("113107", "Retain Longitudinal Temporal Information Modified Dates Option"),
    ("113108", "Retain Patient Characteristics Option"),
    ("113109", "Retain Device Identity Option"),
    ("113110", "Retain UIDs Option"),
    ("113111", "Retain Safe Private Option"),
    ("113112", "Retain Institution Identity Option"),
)
PLANE = (
    "StudyInstanceUID={u} SeriesInstanceUID={u} StudyID=1 SeriesNumber=1 AcquisitionNumber=1 "
    "InstanceNumber=1 ImagePositionPatient=-125.000000\\-125.000000\\-100.000000 "
    "ImageOrientationPatient=1.000000\\0.000000\\0.000000\\0.000000\\1.000000\\0.000000 "
    "FrameOfReferenceUID={u} PositionReferenceIndicator= SliceLocation=-100.000000 ImageComments= "
)
PIXELS = (
    "SamplesPerPixel=1 PhotometricInterpretation=MONOCHROME2 Rows=512 Columns=512 "
    "PixelSpacing=0.488281\\0.488281 BitsAllocated=16 BitsStored=16 HighBit=15 PixelRepresentation=1 "
    "SmallestImagePixelValue=0 LargestImagePixelValue=1000 PixelPaddingValue=63536 "
)
WINDOW = "WindowCenter=40 WindowWidth=400 RescaleIntercept=-1024 RescaleSlope=1 RescaleType=HU "
REQUEST = (
    "RequestingPhysician= RequestedProcedureDescription= PerformedProcedureStepStartDate=20200101 "
    "PerformedProcedureStepStartTime=100000 PerformedProcedureStepID= PerformedProcedureStepDescription= "
)
CT = (
    "ContrastBolusAgent= BodyPartExamined=CHEST ScanOptions=HELICAL_MODE SliceThickness=1.250000 KVP=120 "
    "DataCollectionDiameter=500.000000 SoftwareVersions= ProtocolName= ReconstructionDiameter=360.000000 "
    "DistanceSourceToDetector=949.147000 DistanceSourceToPatient=541.000000 GantryDetectorTilt=0.000000 "
    "TableHeight=150.000000 RotationDirection=CW ExposureTime=500 XRayTubeCurrent=200 Exposure=100 "
    "FilterType=BODY_FILTER GeneratorPower=24000 FocalSpots=1.200000 ConvolutionKernel=STANDARD "
    "PatientPosition=HFS SingleCollimationWidth=0.625 TotalCollimationWidth=40.0 TableSpeed=55.0 "
    "TableFeedPerRotation=27.5 SpiralPitchFactor=0.984375 ExposureModulationType=XYZ_EC CTDIvol=10.0 "
)
MR = (
    "BodyPartExamined=BRAIN ScanningSequence=SE SequenceVariant=SK\\SP\\OSP ScanOptions=PFP\\FS "
    "MRAcquisitionType=2D SequenceName=*tfl3d1_16ns AngioFlag=N SliceThickness=3 RepetitionTime=2000 "
    "EchoTime=30 InversionTime=900 NumberOfAverages=1 ImagingFrequency=123.254 ImagedNucleus=1H "
    "EchoNumbers=1 MagneticFieldStrength=3 SpacingBetweenSlices=3.3 NumberOfPhaseEncodingSteps=255 "
    "EchoTrainLength=1 PercentSampling=100 PercentPhaseFieldOfView=100 PixelBandwidth=240 "
    "DeviceSerialNumber=00000 SoftwareVersions=syngo_MR_E11 ProtocolName= HeartRate= "
    "CardiacNumberOfImages= "
    "TriggerWindow= ReconstructionDiameter= ReceiveCoilName=HeadNeck_20 TransmitCoilName=Body "
    "AcquisitionMatrix=64 InPlanePhaseEncodingDirection=COL FlipAngle=90 VariableFlipAngleFlag=N SAR=0.1 "
    "dBdt=0 PatientPosition=HFS DiffusionBValue=1000 DiffusionGradientOrientation=0 "
)
PT = (
    "BodyPartExamined=WHOLEBODY Radiopharmaceutical=FDG_--_fluorodeoxyglucose SliceThickness=3.27 "
    "CountsAccumulated=0 AcquisitionTerminationCondition=TIME AcquisitionStartCondition=MANU "
    "AcquisitionStartConditionData=0 AcquisitionTerminationConditionData=0 ReconstructionDiameter=600 "
    "GantryDetectorTilt=0 TableHeight=150 FieldOfViewShape=CYLINDRICAL_RING FieldOfViewDimensions=700\\157 "
    "CollimatorType=NONE ConvolutionKernel= ActualFrameDuration=180000 PatientPosition=HFS "
)
PT_END = (
    "RadiopharmaceuticalRoute=Intravenous_route RadiopharmaceuticalVolume=0 "
    "RadiopharmaceuticalStartTime=100000.00 RadionuclideTotalDose=370000000 RadionuclideHalfLife=6586.2 "
    "RadionuclidePositronFraction=0.97 NumberOfSlices=47 NumberOfTimeSlices=1 TypeOfDetectorMotion=NONE "
    "SeriesType=WHOLE_BODY\\IMAGE Units=BQML CountsSource=EMISSION ReprojectionMethod= "
    "RandomsCorrectionMethod=DLYD AttenuationCorrectionMethod=CT DecayCorrection=START "
    "ReconstructionMethod=OSEM ScatterCorrectionMethod=Convolution_subtraction AxialAcceptance=0 "
    "AxialMash=5\\6 FrameReferenceTime=0 PrimaryPromptsCountsAccumulated=0 SliceSensitivityFactor=1 "
    "DecayFactor=1 DoseCalibrationFactor=1 ScatterFractionFactor=0 DeadTimeFactor=1 ImageIndex=1 "
)
DX = (
    "BodyPartExamined=CHEST KVP=125 DistanceSourceToDetector=1800 ExposureTime=10 XRayTubeCurrent=200 "
    "Exposure=2 ImagerPixelSpacing=0.143\\0.143 Grid=NONE FocalSpots=1.2 PlateType= PlateID= "
    "AcquisitionDeviceProcessingDescription=CHEST ViewPosition=PA Sensitivity=200 PositionerType=NONE "
    "DetectorType=SCINTILLATOR PatientOrientation=L\\F Laterality= ImageLaterality=U BurnedInAnnotation=NO "
    "PixelIntensityRelationship=LOG PixelIntensityRelationshipSign=1 LossyImageCompression=00 "
    "PresentationLUTShape=IDENTITY PresentationIntentType=FOR_PRESENTATION "
)
US = (
    "CineRate=30 FrameTime=33.333 ActualFrameDuration=33 PreferredPlaybackSequencing=0 "
    "RecommendedDisplayFrameRate=30 TransducerData=S5-1 NumberOfFrames=30 "
    "FrameIncrementPointer= UltrasoundColorDataPresent=0 PlanarConfiguration=0 "
    "RegionSpatialFormat=1 RegionDataType=1 RegionFlags=2 RegionLocationMinX0=0 RegionLocationMinY0=0 "
    "RegionLocationMaxX1=799 RegionLocationMaxY1=599 PhysicalUnitsXDirection=3 PhysicalUnitsYDirection=3 "
    "PhysicalDeltaX=0.04 PhysicalDeltaY=0.04 LossyImageCompressionRatio=10 "
    "LossyImageCompressionMethod=ISO_10918_1 DerivationDescription= "
)
SR = (
    "CompletionFlag=COMPLETE VerificationFlag=UNVERIFIED ValueType=CONTAINER ContinuityOfContent=SEPARATE "
    "RelationshipType=CONTAINS ContentLabel= ContentDescription= PresentationCreationDate=20200101 "
    "PresentationCreationTime=100000 ContentCreatorName= SegmentNumber=1 SegmentLabel= "
    "SegmentAlgorithmType=MANUAL SegmentationType=BINARY TextValue= NumericValue= Modality=SR "
)
MAKERS = (
    (
        "Philips Medical Systems",
        "Brilliance 64",
        "Ingenuity CT",
        "Achieva dStream",
        "Ingenia",
        "GEMINI TF TOF 16",
        "Allegro Body(C)",
    ),
    (
        "TOSHIBA",
        "Aquilion",
        "Aquilion ONE",
        "CANON_MEC",
        "Galan 3T",
        "Vantage Titan",
        "Hitachi Medical Corporation",
        "HITACHI",
        "FUJIFILM",
    ),
    (
        "Canon Medical Systems",
        "UIH",
        "uMR 770",
        "Agfa",
        "Carestream Health",
        "KODAK",
        "Hologic, Inc.",
        "HOLOGIC",
        "ACUSON",
        "GE Vingmed Ultrasound",
    ),
    (
        "SIEMENS",
        "Siemens Healthineers",
        "SOMATOM Definition AS+",
        "Sensation 64",
        "Biograph64",
        "MAGNETOM Prisma",
        "Prisma_fit",
        "Skyra",
        "TrioTim",
        "Avanto",
        "Verio",
        "Aera",
        "MAGNETOM Vida",
    ),
    (
        "GE MEDICAL SYSTEMS",
        "LightSpeed VCT",
        "LightSpeed16",
        "Discovery CT750 HD",
        "Discovery STE",
        "Discovery ST",
        "Discovery 690",
        "Revolution CT",
        "Optima MR450w",
        "SIGNA HDxt",
        "DISCOVERY MR750",
        "Signa HDx",
        "BrightSpeed",
    ),
)
IMAGE_TYPES = (
    "DERIVED\\SECONDARY|DERIVED\\PRIMARY|ORIGINAL\\PRIMARY\\LOCALIZER|ORIGINAL\\PRIMARY\\M_FFE\\M\\FFE|"
    "ORIGINAL\\PRIMARY\\M_SE\\M\\SE|ORIGINAL\\PRIMARY\\OTHER|ORIGINAL\\PRIMARY\\M\\ND\\NORM|"
    "ORIGINAL\\PRIMARY\\DIFFUSION\\NONE\\ND\\MOSAIC|ORIGINAL\\PRIMARY\\M\\MB\\ND\\NORM|"
    "ORIGINAL\\PRIMARY|ORIGINAL\\PRIMARY\\AXIAL"
)
CREATORS = (
    ("ELSCINT1", 0x01E1),
    ("TOSHIBA_MEC_MR3", 0x0029),
    ("TOSHIBA_MEC_CT3", 0x7005),
    ("Philips PET Private Group", 0x7053),
    ("Philips MR Imaging DD 005", 0x2005),
    ("Philips MR Imaging DD 001", 0x2005),
    ("Philips Imaging DD 001", 0x2001),
    ("SIEMENS CT VA0  COAD", 0x0019),
    ("SIEMENS MEDCOM HEADER2", 0x0029),
    ("SIEMENS MEDCOM HEADER", 0x0029),
    ("SIEMENS CSA HEADER", 0x0029),
    ("SIEMENS MR HEADER", 0x0019),
    ("SIEMENS MR HEADER", 0x0051),
    ("GEMS_PETD_01", 0x0009),
    ("GEMS_HELIOS_01", 0x0045),
    ("GEMS_IDEN_01", 0x0009),
    ("GEMS_ACQU_01", 0x0019),
    ("GEMS_RELA_01", 0x0021),
    ("GEMS_STDY_01", 0x0023),
    ("GEMS_SERS_01", 0x0025),
    ("GEMS_IMAG_01", 0x0027),
    ("GEMS_PARM_01", 0x0043),
)
CSA_NAMES = (
    "EchoLinePosition EchoColumnPosition EchoPartitionPosition UsedChannelMask Actual3DImaPartNumber "
    "ICE_Dims "
    "B_value Filter1 Filter2 ProtocolSliceNumber RealDwellTime PixelFile PixelFileName "
    "SliceMeasurementDuration "
    "SequenceMask AcquisitionMatrixText MeasuredFourierLines FlowEncodingDirection FlowVenc "
    "PhaseEncodingDirectionPositive "
    "NumberOfImagesInMosaic DiffusionGradientDirection ImageGroup SliceNormalVector "
    "DiffusionDirectionality "
    "TimeAfterStart FlipAngle SequenceName RepetitionTime EchoTime NumberOfAverages VoxelThickness "
    "VoxelPhaseFOV VoxelReadoutFOV VoxelPositionSag VoxelPositionCor VoxelPositionTra VoxelNormalSag "
    "VoxelNormalCor "
    "VoxelNormalTra VoxelInPlaneRot ImagePositionPatient ImageOrientationPatient PixelSpacing "
    "SliceLocation SliceThickness "
    "SpectrumTextRegionLabel Comp_Algorithm Comp_Blended Comp_ManualAdjusted Comp_AutoParam "
    "Comp_AdjustedParam "
    "Comp_JobID FMRIStimulInfo FlowEncodingDirectionString RepetitionTimeEffective CsiImagePositionPatient "
    "CsiImageOrientationPatient CsiPixelSpacing CsiSliceLocation CsiSliceThickness OriginalSeriesNumber "
    "OriginalImageNumber ImaAbsTablePosition NonPlanarImage MoCoQMeasure LQAlgorithm SlicePosition_PCS "
    "RBMoCoTrans "
    "RBMoCoRot MultistepIndex ImaRelTablePosition ImaCoilString RFSWDDataType GSWDDataType "
    "NormalizeManipulated "
    "ImaPATModeText B_matrix BandwidthPerPixelPhaseEncode FMRIStimulLevel MosaicRefAcqTimes "
    "AutoInlineImageFilterEnabled "
    "QCData ExamLandmarks ExamDataRole MRDiffusion RealWorldValueMapping DataSetInfo UsedChannelString "
    "PhaseContrastN4 MRVelocityEncoding VelocityEncodingDirectionN4 ImageType4MF ImageHistory SequenceInfo "
    "ImageTypeVisible DistortionCorrectionType ImageFilterType "
    "UsedPatientWeight NumberOfPrescans TransmitterCalibration PhaseGradientAmplitude "
    "ReadoutGradientAmplitude "
    "SelectionGradientAmplitude GradientDelayTime RfWatchdogMask RfPowerErrorIndicator SarWholeBody Sed "
    "SequenceFileOwner Stim_mon_mode Operation_mode_flag dBdt_max t_puls_max dBdt_thresh dBdt_limit "
    "SW_korr_faktor "
    "Stim_max_online Stim_max_ges_norm_online Stim_lim Stim_faktor CoilForGradient CoilForGradient2 "
    "CoilTuningReflection "
    "CoilId MiscSequenceParam MrProtocolVersion DataFileName RepresentativeImage PositivePCSDirections "
    "RelTablePosition ReadoutOS LongModelName SliceArrayConcatenations SliceResolution AbsTablePosition "
    "AutoAlignMatrix MeasurementIndex CoilString PATModeText PatReinPattern ProtocolChangeHistory "
    "Isocentered "
    "MrPhoenixProtocol GradientMode FlowCompensation PostProcProtocol RFSWDOperationMode "
    "RFSWDMostCriticalAspect "
    "SARMostCriticalAspect TablePositionOrigin MrProtocol MrEvaProtocol"
)
PROTOCOL_NAMES = (
    "ulVersion tSequenceFileName tProtocolName tReferenceImage0 tReferenceImage1 tReferenceImage2 "
    "ucScanRegionPosValid lPtabAbsStartPosZ bPtabAbsStartPosZValid ucTablePositioningMode "
    "ucEnableNoiseAdjust "
    "lContrasts lCombinedEchoes ucDisableChangeStoreImages ucAAMode ucAARegionMode ucAARefMode "
    "ucReconstructionMode "
    "ucOneSeriesForAllMeas ucPHAPSMode ulWrapUpMagn lAverages dAveragesDouble lScanTimeSec "
    "lTotalScanTimeSec dRefSNR "
    "dRefSNR_VOI ucMotionCorr ucCineMode ucSequenceType ucCoilCombineMode ucFlipAngleMode lTOM lProtID "
    "lSequenceID "
    "ucReadOutMode ucBold3dPace ucForcePositioningOnNDIS ucInternalTablePosValid alTR[0] alTE[0] alTI[0] "
    "sProtConsistencyInfo.tBaselineString sProtConsistencyInfo.flNominalB0 sProtConsistencyInfo.flGMax "
    "sProtConsistencyInfo.flRiseTime sProtConsistencyInfo.lMaximumNofRxReceiverChannels sGRADSPEC.ucMode "
    "sGRADSPEC.asGPAData[0].lSize sTXSPEC.asNucleusInfo[0].tNucleus sTXSPEC.asNucleusInfo[0].lFrequency "
    "sTXSPEC.asNucleusInfo[0].flReferenceAmplitude sTXSPEC.asNucleusInfo[0].flAmplitudeCorrection "
    "sTXSPEC.aRFPULSE[0].tName sTXSPEC.aRFPULSE[0].bAmplitudeValid sTXSPEC.aRFPULSE[0].flAmplitude "
    "sTXSPEC.lNoOfTraPulses sTXSPEC.lBCExcitationMode sTXSPEC.flKDynMagnitudeMin "
    "sTXSPEC.flKDynMagnitudeMax "
    "sRXSPEC.lGain sRXSPEC.asNucleusInfo[0].tNucleus sRXSPEC.alDwellTime[0] sAdjData.uiAdjFreMode "
    "sAdjData.uiAdjShimMode sAdjData.uiAdjWatSupMode sAdjData.sAdjVolume.sPosition.dSag "
    "sAdjData.sAdjVolume.sPosition.dCor sAdjData.sAdjVolume.sPosition.dTra "
    "sAdjData.sAdjVolume.sNormal.dSag "
    "sAdjData.sAdjVolume.dThickness sAdjData.sAdjVolume.dPhaseFOV sAdjData.sAdjVolume.dReadoutFOV "
    "sKSpace.lBaseResolution sKSpace.lPhaseEncodingLines sKSpace.lPartitions sKSpace.lImagesPerSlab "
    "sKSpace.dPhaseResolution sKSpace.dSliceResolution sKSpace.ucPhasePartialFourier "
    "sKSpace.ucSlicePartialFourier "
    "sKSpace.ucDimension sKSpace.ucTrajectory sKSpace.ucViewSharing sKSpace.ucAsymmetricEchoMode "
    "sKSpace.ucMultiSliceMode sFastImaging.lEPIFactor sFastImaging.lTurboFactor sFastImaging.lEchoSpacing "
    "sFastImaging.ucSegmentationMode sFastImaging.lSegments sPhysioImaging.lSignal1 "
    "sPhysioImaging.lMethod1 "
    "sPhysioImaging.sPhysioECG.lScanWindow sPhysioImaging.sPhysioPulse.lScanWindow "
    "sPhysioImaging.sPhysioExt.lScanWindow sPhysioImaging.sPhysioResp.dGatingRatio "
    "sSpecPara.lPhaseCyclingType "
    "sSpecPara.lPhaseEncodingType sSpecPara.ucRemoveOversampling sDiffusion.lDiffWeightings "
    "sDiffusion.alBValue[0] "
    "sDiffusion.lNoiseLevel sDiffusion.lDiffDirections sDiffusion.ulMode sAngio.ucPCFlowMode "
    "sPat.lAccelFactPE sPat.lAccelFact3D sPat.lRefLinesPE sPat.ucPATMode sPat.ucRefScanMode "
    "sPat.ucTPatAverageAllFrames "
    "sSliceAcceleration.lMultiBandFactor sSliceAcceleration.lFOVShiftFactor sMDS.ulMdsModeMask "
    "sSliceArray.asSlice[0].sPosition.dSag sSliceArray.asSlice[0].sPosition.dCor "
    "sSliceArray.asSlice[0].sPosition.dTra sSliceArray.asSlice[0].sNormal.dSag "
    "sSliceArray.asSlice[0].sNormal.dCor sSliceArray.asSlice[0].sNormal.dTra "
    "sSliceArray.asSlice[0].dThickness "
    "sSliceArray.asSlice[0].dPhaseFOV sSliceArray.asSlice[0].dReadoutFOV "
    "sSliceArray.asSlice[0].dInPlaneRot "
    "sSliceArray.anAsc[1] sSliceArray.anPos[1] sSliceArray.lSize sSliceArray.lConc sSliceArray.ucMode "
    "sSliceArray.sTSat.dThickness sGroupArray.asGroup[0].nSize sGroupArray.asGroup[0].dDistFact "
    "sGroupArray.anMember[1] sGroupArray.lSize sAutoAlign.dAAMatrix[0] sNavigatorPara.lBreathHoldMeas "
    "sPrepPulses.ucFatSat sPrepPulses.ucWaterSat sPrepPulses.ucInversion sPrepPulses.ucSatRecovery "
    "sPrepPulses.ucMTC sCoilSelectMeas.sCoilStringForConversion "
    "sCoilSelectMeas.aRxCoilSelectData[0].asList[0].sCoilElementID.tCoilID "
    "sCoilSelectMeas.aRxCoilSelectData[0].asList[0].sCoilElementID.lCoilCopy "
    "sCoilSelectMeas.aRxCoilSelectData[0].asList[0].sCoilElementID.tElement "
    "sCoilSelectMeas.aRxCoilSelectData[0].asList[0].lElementSelected "
    "sCoilSelectMeas.aRxCoilSelectData[0].asList[0].lRxChannelConnected "
    "sCoilSelectMeas.aRxCoilSelectData[0].asList[0].lADCChannelConnected "
    "sCoilSelectMeas.aRxCoilSelectData[0].asList[0].ucNumberOfFFTElements "
    "sCoilSelectMeas.aRxCoilSelectData[0].aFFT_SCALE[0].flFactor "
    "sCoilSelectMeas.aRxCoilSelectData[0].aFFT_SCALE[0].bValid "
    "sCoilSelectMeas.aRxCoilSelectData[0].aFFT_SCALE[0].lRxChannel "
    "sWipMemBlock.alFree[0] sWipMemBlock.adFree[0] ucCoilCombineMode adFlipAngleDegree[0] lRepetitions"
)


def value_bytes(vr: str, text: str) -> bytes:
    """A value as it stands in the file, padded."""
    if vr in STRUCTS:
        return struct.pack(STRUCTS[vr], float(text) if vr in {"FL", "FD"} else int(text or 0))
    if vr in {"OB", "OW"}:
        return b"\0\1"
    value = text.replace("_", " ").encode()
    return value + (b"\0" if vr == "UI" else b" ") * (len(value) % 2)


def element(tag: int, vr: str, value: bytes, *, explicit: bool = True) -> bytes:
    """An element, little-endian."""
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
    if not explicit:
        return head + struct.pack("<L", len(value)) + value
    if vr in LONG:
        return head + vr.encode() + struct.pack("<HL", 0, len(value)) + value
    return head + vr.encode() + struct.pack("<H", len(value)) + value


def written(described: str, *, explicit: bool = True) -> bytes:
    """Elements of a text of keyword=value, in the order of their tags."""
    found = {}
    for item in described.split():
        keyword, _, value = item.partition("=")
        tag = tag_for_keyword(keyword)
        if tag is None:
            raise ValueError(keyword)
        vr = dictionary_VR(tag).split(" or ")[0]
        found[tag] = element(tag, vr, value_bytes(vr, value), explicit=explicit or tag >> 16 == 2)
    return b"".join(found[tag] for tag in sorted(found))


def header(modality: str, sop_class: str, special: str, number: int, *, explicit: bool = True) -> bytes:
    """A header of a modality, as far as the standard tells it."""
    uid = ROOTS[number % len(ROOTS)] + "0"
    writer = WRITERS[number % len(WRITERS)]
    names = {"c": STORAGE + sop_class, "u": uid, "i": writer[0], "v": writer[1].replace(" ", "_")}
    first = (
        f"SpecificCharacterSet=ISO_IR_100 ImageType=ORIGINAL\\PRIMARY\\AXIAL InstanceCreationDate=20200101 "
        f"InstanceCreationTime=100000 SOPClassUID={{c}} SOPInstanceUID={{u}} Modality={modality} "
        f"Manufacturer=GE_MEDICAL_SYSTEMS ManufacturerModelName= "
    )
    text = (
        META
        + " "
        + first
        + PATIENT
        + " "
        + PLACE
        + PERSON
        + DEIDENTIFIED
        + special
        + PLANE
        + PIXELS
        + WINDOW
        + REQUEST
    )
    return (bytes(128) + b"DICM" if explicit else b"") + written(
        text.format(**names, t=SYNTAXES[-1 if explicit else -2]), explicit=explicit
    )


def codes() -> bytes:
    """The sequence of codes that tells how a file was de-identified (PS3.16, CID 7050)."""
    made = b""
    for code, meaning in CODES:
        item = written(f"CodeValue={code} CodingSchemeDesignator=DCM CodeMeaning={meaning.replace(' ', '_')}")
        made += struct.pack("<HHL", 0xFFFE, 0xE000, len(item)) + item
    return made


def private(creator: str, group: int) -> bytes:
    """The heads of all elements of a private block."""
    made = element(group << 16 | 0x10, "LO", value_bytes("LO", creator))
    for mask, (vr, *_) in sorted(private_dictionaries[creator].items()):
        if not mask.startswith(f"{group:04x}") and not mask.startswith(f"{group:04X}"):
            continue
        if mask[4:6] == "xx" and mask[6:] != "xx":
            tag = group << 16 | 0x1000 | int(mask[6:], 16)
            made += element(tag, vr, bytes(SIZES.get(vr, 0)))
    return made


def csa() -> bytes:
    """Tags of Siemens CSA headers by name, without values."""
    made = b"SV10\4\3\2\1"
    for name in CSA_NAMES.split():
        made += name.encode() + bytes(8)
    empty = struct.pack("<iiii", 0, 0, 205, 0)
    return made + bytes(48) + struct.pack("<i4siii", 1, b"IS\0\0", 6, 6, 77) + 5 * empty


def protocol() -> bytes:
    """Parameters of Siemens protocols by name."""
    return b"".join(f"{name}\t = \t1\n".encode() for name in PROTOCOL_NAMES.split()) + b"### ASCCONV END ###"


def make() -> bytes:
    """The dictionary; what is most likely stands at its end."""
    parts = [protocol(), csa()]
    parts += [private(creator, group) for creator, group in CREATORS]
    parts += ["\\".join(row).encode() for row in MAKERS]
    parts += [IMAGE_TYPES.encode(), "|".join(ROOTS).encode()]
    for number, writer in enumerate(WRITERS):
        text = META.format(
            c=STORAGE + "7", u=ROOTS[number] + "0", t=SYNTAXES[number % 4], i=writer[0], v="{v}"
        )
        parts.append(written(text.format(v=writer[1].replace(" ", "_"))))
    parts += [written(SR), written(US), codes()]
    parts += [header("CT", "2", CT, 3, explicit=False), header("MR", "4", MR, 5, explicit=False)]
    parts += [header("DX", "1.1.1", DX, 0), header("PT", "128", PT + PT_END, 9), header("MR", "4", MR, 7)]
    parts += [header("CT", "2", CT, 13)]
    return b"".join(parts)


def main() -> None:
    """Write the dictionary to the file named on the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path)
    parser.parse_args().output.write_bytes(make())


if __name__ == "__main__":
    main()
